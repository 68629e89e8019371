//! What the kubelet does to a runtime, without a kubelet: calls of containerd's CRI. A call is a message of protobuf in
//! a frame of gRPC, which curl takes there; answers are only searched for what a test asks about.

use super::World;
use std::path::PathBuf;

/// A message in the making.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut number: u64) {
        while number > 127 {
            self.0.push(number as u8 | 128);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u64, message: Self) -> Self {
        self.bytes(field, &message.0)
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn frame(&self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("a short message").to_be_bytes();
        [&[0], &length[..], &self.0].concat()
    }
}

pub struct Cri<'w> {
    world: &'w World,
    frame: PathBuf,
}

impl<'w> Cri<'w> {
    pub fn new(world: &'w World) -> Self {
        Self { world, frame: world.path("/run/cri") }
    }

    /// A call to the runtime service; gives the answer's bytes, or its error in words.
    pub fn call(&self, method: &str, message: &Message) -> Result<Vec<u8>, String> {
        std::fs::write(&self.frame, message.frame()).expect("write the message");
        let curl = "curl --silent --show-error --http2-prior-knowledge --dump-header /run/cri.head --output /run/cri.answer \
            --unix-socket /run/containerd/containerd.sock --data-binary @/run/cri \
            --header 'content-type: application/grpc' --header 'te: trailers' http://cri/runtime.v1.RuntimeService";
        self.world.ok(&format!("rm -f /run/cri.answer; {curl}/{method}; touch /run/cri.answer"));
        let head = std::fs::read_to_string(self.world.path("/run/cri.head")).expect("the head");
        let value = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        match value("grpc-status:") {
            Some("0") => {
                Ok(std::fs::read(self.world.path("/run/cri.answer")).expect("the answer").split_off(5))
            }
            _ => Err(value("grpc-message:").unwrap_or(&head).to_owned()),
        }
    }

    #[track_caller]
    pub fn ok(&self, method: &str, message: &Message) -> Vec<u8> {
        self.call(method, message).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// A call that answers with an id, which is the first field.
    #[track_caller]
    pub fn id(&self, method: &str, message: &Message) -> String {
        let answer = self.ok(method, message);
        assert_eq!(answer.first(), Some(&0x0a), "{method}: {answer:?}");
        String::from_utf8(answer[2..2 + usize::from(answer[1])].to_vec()).expect("an id")
    }
}
