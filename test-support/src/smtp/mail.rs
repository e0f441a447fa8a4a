/// A mail as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The envelope's sender.
    pub from: String,
    /// The envelope's recipients.
    pub to: Vec<String>,
    /// Headers in their order, unfolded, not decoded.
    pub headers: Vec<(String, String)>,
    /// Everything after the empty line, not decoded.
    pub body: String,
}

/// A part of a multipart mail, its text decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Such as `text/plain; charset=utf-8`.
    pub content_type: String,
    /// The text.
    pub text: String,
}

impl Mail {
    /// Reads headers and body of `text`, which the envelope came with. Also reads the content of an `.eml` file.
    pub fn parse(from: String, to: Vec<String>, text: &str) -> Mail {
        let (headers, body) = split(text);
        Mail { from, to, headers, body: body.to_owned() }
    }

    /// The value of the first header called `name`, in any case of letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The parts of a multipart mail; a mail that is none has one.
    pub fn parts(&self) -> Vec<Part> {
        let content_type = self.header("Content-Type").unwrap_or("text/plain");
        let Some(boundary) = boundary(content_type) else { return vec![part(&self.headers, &self.body)] };
        let delimiter = format!("--{boundary}");
        let mut sections = self.body.split(delimiter.as_str());
        // What stands before the first delimiter is for readers that know no multipart.
        sections.next();
        let sections = sections.take_while(|section| !section.starts_with("--"));
        sections
            .map(|section| split(section.trim_start_matches("\r\n")))
            .map(|(headers, body)| part(&headers, body))
            .collect()
    }

    /// The text of the part with this media type, such as `text/html`.
    ///
    /// # Panics
    /// When there is none.
    pub fn text(&self, media_type: &str) -> String {
        let part = self.parts().into_iter().find(|part| part.content_type.starts_with(media_type));
        part.unwrap_or_else(|| panic!("no {media_type} in {self:?}")).text
    }
}

fn split(text: &str) -> (Vec<(String, String)>, &str) {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let headers = unfolded.lines().filter_map(|line| line.split_once(':'));
    (headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(), body)
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn boundary(content_type: &str) -> Option<String> {
    let parameters = content_type.to_ascii_lowercase().starts_with("multipart/").then_some(content_type)?;
    let (_, rest) = parameters.split_once("boundary=")?;
    let value = rest.strip_prefix('"').map_or_else(|| rest.split(';').next(), |quoted| quoted.split('"').next());
    value.map(|value| value.trim().to_owned())
}

fn part(headers: &[(String, String)], body: &str) -> Part {
    let encoding = header(headers, "Content-Transfer-Encoding").unwrap_or("7bit").to_ascii_lowercase();
    let body = body.strip_suffix("\r\n").unwrap_or(body);
    let bytes = match encoding.as_str() {
        "quoted-printable" => quoted_printable(body),
        "base64" => base64(body),
        _ => body.as_bytes().to_vec(),
    };
    let content_type = header(headers, "Content-Type").unwrap_or("text/plain").to_owned();
    Part { content_type, text: String::from_utf8_lossy(&bytes).replace("\r\n", "\n") }
}

/// RFC 2045, section 6.7: `=XX` is a byte, `=` at the end of a line joins it with the next.
fn quoted_printable(text: &str) -> Vec<u8> {
    let joined = text.replace("=\r\n", "");
    let mut bytes = Vec::with_capacity(joined.len());
    let mut rest = joined.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, escaped) {
            (b'=', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    bytes
}

/// RFC 2045, section 6.8: four characters are three bytes; everything outside the alphabet is skipped.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter_map(|byte| ALPHABET.iter().position(|known| *known == byte));
    let (mut bits, mut held, mut bytes) = (0_usize, 0_u32, Vec::new());
    for digit in digits {
        bits = (bits << 6 | digit) & 0xFFFF;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xFF) as u8);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Mail, base64, quoted_printable};

    #[test]
    fn a_multipart_mail_is_taken_apart_and_decoded() {
        let text = "Subject: one\r\n two\r\nContent-Type: multipart/alternative;\r\n boundary=\"xyz\"\r\n\r\n\
            preamble\r\n--xyz\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
            caf=C3=A9 =\r\nau lait\r\n--xyz\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n\
            PHA+Y2Fmw6k8L3A+\r\n--xyz--\r\n";
        let mail = Mail::parse("a@b.example".to_owned(), vec![], text);
        assert_eq!(mail.header("subject"), Some("one two"));
        assert_eq!(mail.text("text/plain"), "café au lait");
        assert_eq!(mail.text("text/html"), "<p>café</p>");
        assert_eq!(mail.parts().len(), 2);
    }

    #[test]
    fn encodings_are_undone() {
        assert_eq!(quoted_printable("a=3Db=\r\nc=zz"), b"a=bc=zz");
        assert_eq!(base64("TWFu\r\nTWE="), b"ManMa");
        assert_eq!(base64("TQ=="), b"M");
    }
}
