//! Answering questions on a unix socket, in as much of HTTP as curl and Prometheus' scrapers need, and asking.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::fair::status::{Snapshot, metrics};

/// Who asks and then does not listen is left alone after this.
const PATIENCE: Duration = Duration::from_millis(300);

/// The socket of a killed daemon is replaced; that there is no other daemon is the caller's to know.
pub fn listen(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {path:?}"));
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).with_context(|| format!("listen at {path:?}"))?;
    listener.set_nonblocking(true).with_context(|| format!("listen at {path:?}"))?;
    Ok(listener)
}

/// Answers whoever is waiting. A client that goes away in the middle is its own problem.
pub fn answer(listener: &UnixListener, snapshot: &dyn Fn() -> Snapshot) {
    while let Ok((mut client, _)) = listener.accept() {
        let result = client
            .set_nonblocking(false)
            .and_then(|()| client.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| client.set_write_timeout(Some(PATIENCE)))
            .and_then(|()| reply(&mut client, snapshot));
        result.ok();
    }
}

fn reply(client: &mut UnixStream, snapshot: &dyn Fn() -> Snapshot) -> std::io::Result<()> {
    let mut request = [0; 4096];
    let mut length = 0;
    while !request[..length].windows(2).any(|end| end == b"\n\r" || end == b"\n\n") {
        match client.read(&mut request[length..])? {
            0 => break,
            more => length += more,
        }
    }
    let line = String::from_utf8_lossy(&request[..length]);
    let path = line.split_ascii_whitespace().nth(1).unwrap_or_default();
    let (code, kind, body) = match path {
        "/status" => ("200 OK", "application/json", serde_json::to_string(&snapshot()).unwrap_or_default()),
        "/metrics" => ("200 OK", "text/plain; version=0.0.4", metrics(&snapshot())),
        _ => ("404 Not Found", "text/plain", "there are /status and /metrics\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.0 {code}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).and_then(|()| client.write_all(body.as_bytes()))
}

/// Whether a daemon listens.
pub fn is_there(path: &Path) -> bool {
    UnixStream::connect(path).is_ok()
}

/// What the daemon behind this socket knows; None: there is none.
pub fn ask(path: &Path) -> Result<Option<Snapshot>> {
    let mut socket = match UnixStream::connect(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        socket => socket.with_context(|| format!("connect to {path:?}"))?,
    };
    let mut answer = String::new();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .and_then(|()| socket.write_all(b"GET /status HTTP/1.0\r\n\r\n"))
        .and_then(|()| socket.read_to_string(&mut answer))
        .with_context(|| format!("ask {path:?}"))?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("ask {path:?}: the answer ends too early");
    };
    if !head.starts_with("HTTP/1.0 200") {
        bail!("ask {path:?}: {}", head.lines().next().unwrap_or_default());
    }
    serde_json::from_str(body).map(Some).with_context(|| format!("the answer of {path:?}"))
}
