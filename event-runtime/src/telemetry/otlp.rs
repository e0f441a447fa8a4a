//! Traces to a collector: OTLP over HTTP with protobuf. Several services may share a process, and each shows as itself:
//! a span belongs to the service its `service` field names, else to its parent's.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use opentelemetry::{
    Context, KeyValue, Value,
    trace::{Span as _, SpanId, TraceContextExt},
};
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor},
};
use tokio::runtime::Handle;

/// Why traces cannot be exported.
#[derive(Debug, thiserror::Error)]
#[error("traces cannot be sent to {endpoint:?}; check OTEL_EXPORTER_OTLP_ENDPOINT")]
pub struct OtlpError {
    endpoint: String,
    source: opentelemetry_otlp::ExporterBuildError,
}

const SERVICE: &str = "service";
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends spans to `endpoint`, batched; those that no service claims as `fallback`'s.
pub(super) fn processor(endpoint: &str, fallback: &'static str) -> Result<impl SpanProcessor + use<>, OtlpError> {
    let exporter = PerService {
        endpoint: endpoint.trim_end_matches('/').to_owned(),
        fallback,
        runtime: Handle::current(),
        resource: Resource::builder_empty().build(),
        exporters: Mutex::default(),
    };
    // Built once here so that a bad endpoint is found at the start and not in the background.
    exporter.build(fallback).map_err(|source| OtlpError { endpoint: endpoint.to_owned(), source })?;
    Ok(NameService { running: Mutex::default(), next: BatchSpanProcessor::builder(exporter).build() })
}

/// Notes for every span which service it belongs to, while its parent is still known.
#[derive(Debug)]
struct NameService<P> {
    /// The services of the spans that run now.
    running: Mutex<HashMap<SpanId, Value>>,
    next: P,
}

impl<P: SpanProcessor> SpanProcessor for NameService<P> {
    fn on_start(&self, span: &mut Span, parent: &Context) {
        let own = span.exported_data().and_then(|data| service_of(&data));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let inherited = || running.get(&parent.span().span_context().span_id()).cloned();
        let is_own = own.is_some();
        if let Some(service) = own.or_else(inherited) {
            running.insert(span.span_context().span_id(), service.clone());
            if !is_own {
                span.set_attribute(KeyValue::new(SERVICE, service));
            }
        }
        drop(running);
        self.next.on_start(span, parent);
    }

    fn on_end(&self, span: SpanData) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&span.span_context.span_id());
        self.next.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// One exporter a service, because `service.name` belongs to an exporter's resource and not to a span.
#[derive(Debug)]
struct PerService {
    endpoint: String,
    fallback: &'static str,
    /// The batch processor exports from a thread of its own, and the HTTP client needs a runtime.
    runtime: Handle,
    /// What the provider knows of this process, without a service name.
    resource: Resource,
    exporters: Mutex<HashMap<String, Arc<OtlpExporter>>>,
}

impl PerService {
    fn build(&self, service: &str) -> Result<OtlpExporter, opentelemetry_otlp::ExporterBuildError> {
        let mut exporter = OtlpExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", self.endpoint))
            .with_timeout(TIMEOUT)
            .build()?;
        let attributes = self.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let named = Resource::builder_empty().with_attributes(attributes).with_service_name(service.to_owned());
        exporter.set_resource(&named.build());
        Ok(exporter)
    }

    fn exporter(&self, service: &str) -> Result<Arc<OtlpExporter>, OTelSdkError> {
        let mut exporters = self.exporters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(exporter) = exporters.get(service) {
            return Ok(exporter.clone());
        }
        let built = self.build(service).map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?;
        Ok(exporters.entry(service.to_owned()).or_insert(Arc::new(built)).clone())
    }
}

impl SpanExporter for PerService {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut by_service: HashMap<String, Vec<SpanData>> = HashMap::new();
        for span in batch {
            let service = service_of(&span).map_or_else(|| self.fallback.to_owned(), |name| name.to_string());
            by_service.entry(service).or_default().push(span);
        }
        let mut outcome = Ok(());
        for (service, spans) in by_service {
            let exporter = self.exporter(&service)?;
            let sent = self.runtime.spawn(async move { exporter.export(spans).await }).await;
            // The others are still sent; the last failure is reported.
            if let Err(error) = sent.unwrap_or_else(|error| Err(OTelSdkError::InternalFailure(error.to_string()))) {
                outcome = Err(error);
            }
        }
        outcome
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.clone();
    }
}

fn service_of(span: &SpanData) -> Option<Value> {
    span.attributes.iter().find(|attribute| attribute.key.as_str() == SERVICE).map(|found| found.value.clone())
}
