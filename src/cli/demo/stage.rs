//! What the demo prints, and how it looks. Each block is written at once, so that an event, which
//! comes when it comes, stands between lines.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use serde_json::Value;

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const DONE: Style = AnsiColor::Green.on_default();
const EVENT: Style = AnsiColor::Magenta.on_default();
const STRONG: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Stands in a call's JSON for the client's secret: the shell puts it there.
pub(super) const CLIENT_SECRET: &str = "$SECRET";

/// Standard output, and where the calls go that are shown.
#[derive(Clone)]
pub(super) struct Stage {
    grpc: SocketAddr,
}

impl Stage {
    pub(super) fn new(grpc: SocketAddr) -> Self {
        Self { grpc }
    }

    /// What this is, where everything listens, and the line to paste first.
    pub(super) fn opening(
        &self,
        web: SocketAddr,
        issuer: SocketAddr,
        folder: &Path,
        key_file: &Path,
    ) -> io::Result<()> {
        let grpc = self.grpc;
        let (folder, key) = (folder.display(), quoted(key_file));
        show(&format!(
            "\n{TITLE}tokenbroker demo{TITLE:#}\n\
             One process is everything here: the token broker, the OAuth provider (its own\n\
             authorisation server) and SQLite. Ada, a made-up person, connects her account. All of\n\
             it is real gRPC and real HTTP over loopback.\n\n\
             \x20 gRPC      {STRONG}{grpc}{STRONG:#}\n\
             \x20 browsers  {STRONG}http://{web}/{STRONG:#}\n\
             \x20 issuer    {STRONG}http://{issuer}{STRONG:#}\n\
             \x20 data      {folder}\n\n\
             The dimmed lines repeat each call from another terminal. First, there:\n\
             \x20 {DIM}KEY=$(cat {key}){DIM:#}\n"
        ))
    }

    /// A step begins: what happens, and why it matters.
    pub(super) fn step(&self, number: u32, title: &str, why: &[&str]) -> io::Result<()> {
        let mut text = format!("\n{TITLE}{number}  {title}{TITLE:#}\n");
        for line in why {
            // Writing to a string can't fail.
            let _ = writeln!(text, "   {line}");
        }
        show(&text)
    }

    /// Something came about.
    pub(super) fn done(&self, what: &str) -> io::Result<()> {
        show(&format!("   {DONE}✓{DONE:#} {what}\n"))
    }

    /// A point of what came about.
    pub(super) fn point(&self, what: &str) -> io::Result<()> {
        show(&format!("       {what}\n"))
    }

    /// A line for a shell.
    pub(super) fn shell(&self, line: &str) -> io::Result<()> {
        show(&format!("     {DIM}{line}{DIM:#}\n"))
    }

    /// How to make a call again.
    pub(super) fn call(&self, method: &str, message: &Value) -> io::Result<()> {
        let text = grpcurl(self.grpc, method, message);
        show(&format!("     {DIM}{text}{DIM:#}\n"))
    }

    /// An event of the stream.
    pub(super) fn event(&self, what: &str) -> io::Result<()> {
        show(&format!("   {EVENT}◆ event {what}{EVENT:#}\n"))
    }

    /// The story is told, and the service goes on.
    pub(super) fn serving(&self, temporary: bool) -> io::Result<()> {
        let end = if temporary {
            "Ctrl-C ends it and removes the folder."
        } else {
            "Ctrl-C ends it; the folder stays."
        };
        show(&format!(
            "\n{TITLE}Now it is yours{TITLE:#}\n\
             \x20  It goes on serving, and events go on being shown. Repeat the calls of step 6, open\n\
             \x20  the link in your own browser, and be Ada. {STRONG}{end}{STRONG:#}\n"
        ))
    }

    /// The story is told, and that is all.
    pub(super) fn told(&self, summary: &str) -> io::Result<()> {
        show(&format!("\n{STRONG}{summary}{STRONG:#}\n"))
    }
}

/// A call as grpcurl makes it. The message stands in single quotes, which the texts in it don't have.
fn grpcurl(grpc: SocketAddr, method: &str, message: &Value) -> String {
    let secret = format!("\"{CLIENT_SECRET}\"");
    let message = message
        .to_string()
        .replace('\'', "\\u0027")
        .replace(&secret, &format!("\"'{secret}'\""));
    format!(
        "grpcurl -plaintext -H \"authorization: Bearer $KEY\" -d '{message}' {grpc} tokenbroker.v1.{method}"
    )
}

/// A path as one word for a shell.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Colours where a terminal shows them and `NO_COLOR` does not forbid them. Flushed, so that a closed
/// pipe is noticed.
fn show(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_can_be_pasted() {
        let message = json!({ "client_secret": CLIENT_SECRET, "name": "Ada's" });
        let line = grpcurl(([127, 0, 0, 1], 1).into(), "S/Call", &message);
        assert_eq!(
            line,
            "grpcurl -plaintext -H \"authorization: Bearer $KEY\" \
             -d '{\"client_secret\":\"'\"$SECRET\"'\",\"name\":\"Ada\\u0027s\"}' \
             127.0.0.1:1 tokenbroker.v1.S/Call"
        );
        assert_eq!(quoted(Path::new("a b'c")), "'a b'\\''c'");
    }
}
