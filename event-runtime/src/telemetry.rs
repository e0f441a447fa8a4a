//! Logs, traces and metrics of a process.
//!
//! Logs are one line a state change. Their fields come from the event and from the spans around it, so that a handler
//! that says `tracing::info!("charged")` gets service, event, attempt and correlation id for nothing.

pub(crate) mod lines;
pub mod metrics;
mod otlp;
pub mod trace;

use std::{io::IsTerminal, time::Duration};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Dispatch;
use tracing_subscriber::{Layer, filter::FilterFn, layer::SubscriberExt};

use crate::config::{LogFormat, TelemetryConfig};
use lines::{Lines, LogFilter};
pub use otlp::OtlpError;

/// Where log lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard error: for commands, whose data is on standard output.
    #[default]
    Stderr,
    /// Standard output: for services, whose log is their output.
    Stdout,
}

/// How this process logs and traces.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Text or JSON.
    pub format: LogFormat,
    /// Where lines go.
    pub output: LogOutput,
    /// What is logged where `RUST_LOG` does not say, such as `warn`; `info` unless given.
    pub default_filter: Option<String>,
    /// Where traces go (OTLP over HTTP); nowhere unless set.
    pub otlp_endpoint: Option<String>,
    /// `service.name` of spans that belong to no service of their own.
    pub service: &'static str,
}

impl LogOptions {
    /// For a process that is `service`, as configured.
    pub fn new(service: &'static str, config: &TelemetryConfig) -> LogOptions {
        LogOptions {
            format: config.log_format,
            output: LogOutput::Stdout,
            default_filter: None,
            otlp_endpoint: config.otlp_endpoint.clone(),
            service,
        }
    }

    /// The same, with lines on standard error.
    pub fn stderr(mut self) -> LogOptions {
        self.output = LogOutput::Stderr;
        self
    }

    /// The same, logging what `filter` says where `RUST_LOG` is not set.
    pub fn default_filter(mut self, filter: &str) -> LogOptions {
        self.default_filter = Some(filter.to_owned());
        self
    }
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `RUST_LOG` cannot be read.
    #[error("RUST_LOG cannot be read; write for example RUST_LOG=info,event_runtime=debug")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error("logging was started twice")]
    Twice(#[from] tracing::dispatcher::SetGlobalDefaultError),
    /// The OTLP exporter cannot be made.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
}

/// Running telemetry. Keep it until the end, and then call [`shutdown`](Telemetry::shutdown).
#[derive(Debug)]
#[must_use = "traces that wait to be sent are lost without Telemetry::shutdown"]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

/// Starts logs and traces for this process. Call it once, inside the runtime.
///
/// # Errors
/// When `RUST_LOG` or the endpoint cannot be read, or when it was called before.
pub fn init(options: &LogOptions) -> Result<Telemetry, InitError> {
    let (dispatch, telemetry) = dispatch(options)?;
    tracing::dispatcher::set_global_default(dispatch)?;
    Ok(telemetry)
}

/// As [`init`], for a part of a process, such as a test: the caller says where the dispatch is the default.
///
/// # Errors
/// When `RUST_LOG` or the endpoint cannot be read.
pub fn dispatch(options: &LogOptions) -> Result<(Dispatch, Telemetry), InitError> {
    let provider = provider(options)?;
    let exports = options.otlp_endpoint.is_some();
    // Without an export, the layer is there to make and hand on trace ids only: events would be collected for nobody.
    let traced = FilterFn::new(move |metadata| {
        metadata.name() != lines::SERVICE_SPAN && (metadata.is_span() || exports) && is_ours(metadata)
    });
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("event-runtime"))
        .with_context_activation(false)
        .with_tracked_inactivity(false)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_filter(traced);
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(lines_layer(options)?).with(traces));
    Ok((dispatch, Telemetry { provider }))
}

impl Telemetry {
    /// Sends what waits to be sent, for at most five seconds.
    pub async fn shutdown(self) {
        let provider = self.provider;
        // The exporter's own thread needs this runtime to send, so this must not block it.
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(Duration::from_secs(5))).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "traces were lost at the end");
        }
    }
}

fn provider(options: &LogOptions) -> Result<SdkTracerProvider, OtlpError> {
    let builder = SdkTracerProvider::builder();
    Ok(match &options.otlp_endpoint {
        // Every span, whatever the caller decided: a caller that exports nothing hands on "not sampled".
        Some(endpoint) => builder
            .with_sampler(Sampler::AlwaysOn)
            .with_span_processor(otlp::processor(endpoint, options.service)?)
            .build(),
        None => builder.with_sampler(Sampler::AlwaysOff).build(),
    })
}

fn lines_layer<S>(options: &LogOptions) -> Result<impl Layer<S> + use<S>, InitError>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let given = std::env::var("RUST_LOG").ok().filter(|filter| !filter.is_empty());
    let filter = given.as_deref().or(options.default_filter.as_deref()).unwrap_or("info");
    let filter = LogFilter::new(filter)?;
    let colour = options.format == LogFormat::Text && is_terminal(options.output) && wants_colour();
    Ok(Lines::new(options.format, options.output, colour).with_filter(filter))
}

fn is_terminal(output: LogOutput) -> bool {
    match output {
        LogOutput::Stderr => std::io::stderr().is_terminal(),
        LogOutput::Stdout => std::io::stdout().is_terminal(),
    }
}

/// See <https://no-color.org>.
fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Spans of libraries below us would multiply every trace.
fn is_ours(metadata: &tracing::Metadata<'_>) -> bool {
    const LIBRARIES: &[&str] = &["hyper", "h2", "reqwest", "sqlx", "tower", "tokio", "rdkafka", "opentelemetry"];
    *metadata.level() <= tracing::Level::INFO && !LIBRARIES.iter().any(|library| metadata.target().starts_with(library))
}
