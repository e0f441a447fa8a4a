use std::time::{Duration, Instant};

use test_support::{SmtpSink, smtp::Answer};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// A client that types commands.
struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    out: OwnedWriteHalf,
}

impl Client {
    async fn connect(sink: &SmtpSink) -> Client {
        let (read, out) = TcpStream::connect(sink.address()).await.unwrap().into_split();
        let mut client = Client { lines: BufReader::new(read).lines(), out };
        assert_eq!(client.code().await, 220);
        client
    }

    /// Sends one line and returns the code of the answer.
    async fn ask(&mut self, line: &str) -> u16 {
        self.out.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
        self.code().await
    }

    /// The code of the next answer, 0 when the server hung up.
    async fn code(&mut self) -> u16 {
        loop {
            let Some(line) = self.lines.next_line().await.unwrap() else { return 0 };
            // `250-` announces another line.
            if line.as_bytes()[3] != b'-' {
                return line[..3].parse().unwrap();
            }
        }
    }

    async fn send(&mut self, to: &str, text: &str) -> u16 {
        assert_eq!(self.ask("MAIL FROM:<shop@example.com>").await, 250);
        match self.ask(&format!("RCPT TO:<{to}>")).await {
            250 => assert_eq!(self.ask("DATA").await, 354),
            refused => return refused,
        }
        self.ask(&format!("{text}\r\n.")).await
    }
}

#[tokio::test]
async fn a_mail_is_kept_with_envelope_headers_and_body() {
    let sink = SmtpSink::start().await;
    let mut client = Client::connect(&sink).await;
    assert_eq!(client.ask("EHLO test").await, 250);
    let text = "Message-ID: <1@example.com>\r\nSubject: hello\r\n\r\nline\r\n..two dots\r\n.one dot";
    assert_eq!(client.send("ann@example.com", text).await, 250);
    assert_eq!(client.ask("QUIT").await, 221);
    let [mail] = &sink.mails()[..] else { panic!("{:?}", sink.mails()) };
    assert_eq!((mail.from.as_str(), &mail.to[..]), ("shop@example.com", &["ann@example.com".to_owned()][..]));
    assert_eq!(mail.header("subject"), Some("hello"));
    assert_eq!(mail.body, "line\r\n.two dots\r\none dot\r\n");
}

#[tokio::test]
async fn commands_out_of_order_are_refused_and_reset_begins_anew() {
    let sink = SmtpSink::start().await;
    let mut client = Client::connect(&sink).await;
    let table = [
        ("HELO test", 250),
        ("RCPT TO:<a@b.example>", 503),
        ("DATA", 503),
        ("MAIL a@b.example", 501),
        ("mail from:<a@b.example> SIZE=10", 250),
        ("MAIL FROM:<a@b.example>", 503),
        ("RCPT TO:<>", 501),
        ("RSET", 250),
        ("RCPT TO:<a@b.example>", 503),
        ("NOOP", 250),
        ("WHAT", 500),
        ("é", 500),
        ("MAIL FRÖM:<a@b.example>", 501),
    ];
    for (line, code) in table {
        assert_eq!(client.ask(line).await, code, "{line}");
    }
    assert!(sink.mails().is_empty());
}

#[tokio::test]
async fn answers_can_be_set_for_all_and_for_one() {
    let sink = SmtpSink::start().await;
    let mut client = Client::connect(&sink).await;
    sink.answer(Answer::NotNow);
    sink.answer_to("gone@example.com", Answer::Never);
    assert_eq!(client.send("ann@example.com", "").await, 451);
    assert_eq!(client.ask("RSET").await, 250);
    assert_eq!(client.send("gone@example.com", "").await, 550);
    assert_eq!(client.ask("RSET").await, 250);
    sink.answer(Answer::After(Duration::from_millis(60)));
    let before = Instant::now();
    assert_eq!(client.send("ann@example.com", "Message-ID: <1>\r\n\r\n").await, 250);
    assert!(before.elapsed() >= Duration::from_millis(60));
    sink.answer(Answer::HangUp);
    assert_eq!(client.send("ann@example.com", "Message-ID: <1>\r\n\r\n").await, 0);
    assert_eq!(sink.copies(), [("<1>".to_owned(), 2)].into());
}

#[tokio::test]
async fn a_stopped_server_refuses_and_a_successor_takes_its_address() {
    let sink = SmtpSink::start().await;
    let mut client = Client::connect(&sink).await;
    let address = sink.stop().await;
    assert_eq!(client.code().await, 0);
    assert!(TcpStream::connect(address).await.is_err());
    let sink = SmtpSink::start_at(address).await.unwrap();
    assert_eq!(Client::connect(&sink).await.ask("NOOP").await, 250);
}
