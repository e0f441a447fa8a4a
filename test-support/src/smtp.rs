//! A mail server that keeps what it is sent, for looking at it: enough of RFC 5321 for a client that sends, without
//! relaying, authentication or TLS.
//!
//! It can be told how to answer, for one recipient or for all, so that tests see a client meet refusals and delays.

mod mail;
mod session;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

pub use mail::{Mail, Part};

/// What the server answers to a recipient.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// Takes the mail.
    #[default]
    Accept,
    /// 451: not now.
    NotNow,
    /// 550: never.
    Never,
    /// Takes the mail, this much later.
    After(Duration),
    /// Takes and keeps the mail, then hangs up instead of saying so.
    HangUp,
}

/// A running mail server on loopback. It stops when dropped; connections are cut.
pub struct SmtpSink {
    address: SocketAddr,
    state: Arc<State>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    mails: Mutex<Vec<Mail>>,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    all: Answer,
    by_recipient: HashMap<String, Answer>,
}

impl SmtpSink {
    /// On a free port.
    pub async fn start() -> SmtpSink {
        SmtpSink::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("loopback has a free port")
    }

    /// On a given address: for a server that comes back.
    ///
    /// # Errors
    /// When the address is in use.
    pub async fn start_at(address: SocketAddr) -> io::Result<SmtpSink> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State::default());
        let server = tokio::spawn(serve(listener, Arc::clone(&state)));
        Ok(SmtpSink { address, state, server })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `smtp://127.0.0.1:port`
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Answers every recipient so from now on, save those that have an answer of their own.
    pub fn answer(&self, answer: Answer) {
        lock(&self.state.answers).all = answer;
    }

    /// Answers one recipient so from now on.
    pub fn answer_to(&self, recipient: &str, answer: Answer) {
        lock(&self.state.answers).by_recipient.insert(recipient.to_owned(), answer);
    }

    /// How many mails came in so far.
    pub fn received(&self) -> usize {
        lock(&self.state.mails).len()
    }

    /// What came in so far, in order.
    pub fn mails(&self) -> Vec<Mail> {
        lock(&self.state.mails).clone()
    }

    /// How often each Message-ID came in.
    ///
    /// # Panics
    /// When a mail has none.
    pub fn copies(&self) -> BTreeMap<String, usize> {
        let mut copies = BTreeMap::new();
        for mail in lock(&self.state.mails).iter() {
            let id = mail.header("Message-ID").unwrap_or_else(|| panic!("a mail without Message-ID: {mail:?}"));
            *copies.entry(id.to_owned()).or_default() += 1;
        }
        copies
    }

    /// Stops listening and cuts every connection. Returns the address, free for a successor.
    pub async fn stop(mut self) -> SocketAddr {
        self.server.abort();
        // Cancelled is how it ends; the wait makes sure that the socket is closed.
        let ended = (&mut self.server).await;
        assert!(ended.is_err_and(|error| error.is_cancelled()), "the mail server ended by itself");
        self.address
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    fn answer_to(&self, recipient: &str) -> Answer {
        let answers = lock(&self.answers);
        answers.by_recipient.get(recipient).copied().unwrap_or(answers.all)
    }

    fn keep(&self, mail: Mail) {
        lock(&self.mails).push(mail);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    // Sessions live in the set, so that they end with the server.
    let mut sessions = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let state = Arc::clone(&state);
        // A session that ends with an error is a client that went away: nothing to do about it.
        sessions.spawn(async move { drop(session::run(socket, &state).await) });
        while sessions.try_join_next().is_some() {}
    }
}
