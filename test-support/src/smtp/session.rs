//! One conversation, command by command (RFC 5321, section 4.1).

use std::io;

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{Answer, Mail, State};

const MAX_LINE: u64 = 4_096;
const MAX_MAIL: usize = 10 * 1024 * 1024;

/// What is known of the mail that is being sent.
#[derive(Default)]
struct Transaction {
    from: Option<String>,
    to: Vec<String>,
    answer: Answer,
}

struct Session<'a> {
    lines: BufReader<OwnedReadHalf>,
    out: OwnedWriteHalf,
    state: &'a State,
    transaction: Transaction,
}

pub(super) async fn run(socket: TcpStream, state: &State) -> io::Result<()> {
    let (read, out) = socket.into_split();
    let mut session = Session { lines: BufReader::new(read), out, state, transaction: Transaction::default() };
    session.say("220 test mail sink").await?;
    while let Some(line) = session.line().await? {
        if !session.command(line.trim_end()).await? {
            break;
        }
    }
    Ok(())
}

impl Session<'_> {
    /// Answers one command; false ends the conversation.
    async fn command(&mut self, line: &str) -> io::Result<bool> {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let argument = line.get(verb.len()..).unwrap_or_default();
        match verb.as_str() {
            "EHLO" => {
                self.transaction = Transaction::default();
                self.say("250-test mail sink\r\n250-8BITMIME\r\n250 SMTPUTF8").await?;
            }
            "HELO" | "RSET" => {
                self.transaction = Transaction::default();
                self.say("250 ok").await?;
            }
            "NOOP" => self.say("250 ok").await?,
            "MAIL" => self.mail(argument).await?,
            "RCPT" => self.recipient(argument).await?,
            "DATA" => return self.data().await,
            "QUIT" => {
                self.say("221 bye").await?;
                return Ok(false);
            }
            _ => self.say("500 unknown command").await?,
        }
        Ok(true)
    }

    async fn mail(&mut self, argument: &str) -> io::Result<()> {
        match (path(argument, "FROM"), &self.transaction.from) {
            (None, _) => self.say("501 MAIL FROM:<address>").await,
            (_, Some(_)) => self.say("503 one mail at a time").await,
            (Some(from), None) => {
                self.transaction.from = Some(from);
                self.say("250 ok").await
            }
        }
    }

    async fn recipient(&mut self, argument: &str) -> io::Result<()> {
        if self.transaction.from.is_none() {
            return self.say("503 MAIL first").await;
        }
        let Some(to) = path(argument, "TO").filter(|to| !to.is_empty()) else {
            return self.say("501 RCPT TO:<address>").await;
        };
        let answer = self.state.answer_to(&to);
        match answer {
            Answer::NotNow => return self.say("451 4.3.0 try again later").await,
            Answer::Never => return self.say("550 5.1.1 no such mailbox").await,
            Answer::After(_) | Answer::HangUp => self.transaction.answer = answer,
            Answer::Accept => {}
        }
        self.transaction.to.push(to);
        self.say("250 ok").await
    }

    async fn data(&mut self) -> io::Result<bool> {
        if self.transaction.to.is_empty() {
            self.say("503 RCPT first").await?;
            return Ok(true);
        }
        self.say("354 go on, end with a dot").await?;
        let Some(text) = self.text().await? else { return Ok(false) };
        let Transaction { from, to, answer } = std::mem::take(&mut self.transaction);
        if let Answer::After(pause) = answer {
            tokio::time::sleep(pause).await;
        }
        self.state.keep(Mail::parse(from.unwrap_or_default(), to, &text));
        if answer == Answer::HangUp {
            return Ok(false);
        }
        self.say("250 kept").await?;
        Ok(true)
    }

    /// The mail up to the line that is a single dot, with dot-stuffing undone (section 4.5.2).
    async fn text(&mut self) -> io::Result<Option<String>> {
        let mut text = String::new();
        while let Some(line) = self.line().await? {
            if line == ".\r\n" {
                return Ok(Some(text));
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            if text.len() > MAX_MAIL {
                return Err(io::Error::other("the mail is too large"));
            }
        }
        Ok(None)
    }

    /// The next line with its end, or nothing when the client has gone.
    async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        let read = (&mut self.lines).take(MAX_LINE).read_until(b'\n', &mut line).await?;
        if read == 0 || !line.ends_with(b"\n") {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    async fn say(&mut self, answer: &str) -> io::Result<()> {
        self.out.write_all(format!("{answer}\r\n").as_bytes()).await
    }
}

/// The address in ` FROM:<address> …`.
fn path(argument: &str, word: &str) -> Option<String> {
    let argument = argument.trim_start();
    let rest = argument.get(word.len()..).filter(|_| argument[..word.len()].eq_ignore_ascii_case(word))?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('<')?;
    rest.split_once('>').map(|(address, _)| address.to_owned())
}
