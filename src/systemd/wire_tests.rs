use super::*;
use proptest::prelude::*;

fn body(value: &Value) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.value(value);
    writer.0
}

#[test]
fn values_are_laid_out_as_the_specification_says() {
    assert_eq!(body(&Value::text("foo")), b"\x03\0\0\0foo\0");
    assert_eq!(body(&Value::Bool(true)), [1, 0, 0, 0]);
    assert_eq!(body(&Value::variant(Value::Byte(7))), b"\x01y\0\x07");
    // The padding between the length and the first element is not counted.
    let wide = Value::Array("t".to_owned(), vec![Value::Uint64(5)]);
    assert_eq!(body(&wide), [8, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(body(&Value::Array("t".to_owned(), vec![])), [0; 8]);
    let pair = Value::Struct(vec![Value::text("A"), Value::variant(Value::Bool(false))]);
    assert_eq!(body(&pair), b"\x01\0\0\0A\0\x01b\0\0\0\0\0\0\0\0");
    assert_eq!(Value::Array("(sv)".to_owned(), vec![pair]).signature(), "a(sv)");
}

#[test]
fn a_call_is_whole() {
    let bytes = call(9, "StopUnit", &[Value::text("a.scope"), Value::text("replace")]);
    assert_eq!(&bytes[..4], b"l\x01\0\x01");
    assert_eq!(&bytes[4..8], 24u32.to_le_bytes(), "7 + 1 letters, and their lengths");
    assert_eq!(&bytes[8..12], 9u32.to_le_bytes());
    assert_eq!(length(&bytes).unwrap(), Some(bytes.len()));
    assert!(bytes.ends_with(b"\x07\0\0\0a.scope\0\x07\0\0\0replace\0"));
}

/// A message as systemd sends it.
fn message(kind: u8, fields: &[(u8, &str, &str)], to: Option<u32>, body: &[Value]) -> Vec<u8> {
    let mut content = Writer::default();
    body.iter().for_each(|value| content.value(value));
    let mut bytes = Writer(vec![b'l', kind, 1, 1]);
    bytes.raw((content.0.len() as u32).to_le_bytes());
    bytes.raw([0; 8]);
    bytes.0.truncate(12);
    bytes.raw([0; 4]);
    if let Some(to) = to {
        bytes.pad(8);
        bytes.0.push(REPLY_SERIAL);
        bytes.signature("u");
        bytes.raw(to.to_le_bytes());
    }
    for (code, kind, text) in fields {
        bytes.pad(8);
        bytes.0.push(*code);
        bytes.signature(kind);
        if *kind == "g" { bytes.signature(text) } else { bytes.text(text) }
    }
    let length = (bytes.0.len() - PRELUDE) as u32;
    bytes.0[12..16].copy_from_slice(&length.to_le_bytes());
    bytes.pad(8);
    bytes.0.extend_from_slice(&content.0);
    bytes.0
}

#[test]
fn what_systemd_says_is_read() {
    let job = "/org/freedesktop/systemd1/job/7";
    let reply = message(REPLY, &[(SIGNATURE, "g", "o")], Some(3), &[Value::text(job)]);
    assert_eq!(read(&reply).unwrap(), Message::Reply { to: 3, texts: vec![job.to_owned()] });
    assert_eq!(length(&reply).unwrap(), Some(reply.len()));
    assert_eq!(length(&reply[..PRELUDE - 1]).unwrap(), None);

    let name = "org.freedesktop.systemd1.UnitExists";
    let fields = [(ERROR_NAME, "s", name), (SIGNATURE, "g", "s")];
    let error = message(ERROR, &fields, Some(3), &[Value::text("Unit a.scope exists.")]);
    let texts = vec!["Unit a.scope exists.".to_owned()];
    assert_eq!(read(&error).unwrap(), Message::Error { to: 3, name: name.to_owned(), texts });

    let fields = [(PATH, "o", "/x"), (MEMBER, "s", "JobRemoved"), (SIGNATURE, "g", "uoss")];
    let values = [Value::Uint32(7), Value::text(job), Value::text("a.scope"), Value::text("done")];
    let texts = vec![job.to_owned(), "a.scope".to_owned(), "done".to_owned()];
    let signal = Message::Signal { member: "JobRemoved".to_owned(), texts };
    assert_eq!(read(&message(SIGNAL, &fields, None, &values)).unwrap(), signal);
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        // Neither may panic nor ask for much memory.
        let _known = length(&bytes).is_ok();
        let _read = read(&bytes).is_ok();
    }

    #[test]
    fn a_message_cut_short_is_no_message(cut in 0usize..60) {
        let whole = call(1, "X", &[Value::text("y")]);
        let short = &whole[..whole.len().saturating_sub(cut + 1)];
        let _read = read(short).is_ok();
        prop_assert!(length(short).unwrap().is_none_or(|length| length > short.len()));
    }
}
