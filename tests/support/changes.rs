//! Random changes of a tree, as a shell makes them, the same for the same seed.

/// A generator that gives the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// As a shell reads them.
const PLACES: [&str; 12] =
    ["a", "b", "c", "d/a", "d/b", "d/e/a", "d", "d/e", "f", "'two words'", "\"d/it's\"", "'d/\u{e4}\n#'"];

/// One change, in words busybox's shell and the machine's own understand alike. It may well fail.
fn change(random: &mut Random) -> String {
    let (x, y) = (random.pick(&PLACES), random.pick(&PLACES));
    let number = random.below(1000);
    match random.below(24) {
        0..=2 => format!("echo {number} > {x}"),
        3 => format!("echo {number} >> {x}"),
        4 => format!("rm -rf {x}"),
        5 => format!("mkdir {x}"),
        6 => format!("mkdir -p {x}"),
        7 => format!("rm -rf {x}; mkdir {x}; echo {number} > {x}/a"),
        8 => format!("mv {x} {y}"),
        9 => format!("cp -r {x} {y}"),
        10 => format!("ln -s {y} {x}"),
        11 => format!("chmod {} {x}", random.pick(&["600", "755", "4711", "1777", "000"])),
        12 => format!("chown -h {} {x}", random.pick(&["0:0", "7:8", "1000:1000"])),
        // One that nothing opens: it would wait for ever.
        13 => "rm -f p; mkfifo p".to_owned(),
        // Names of one file that nothing writes to later: overlayfs would take them apart.
        14 => format!("rm -rf k; mkdir k; echo {number} > k/a; ln k/a k/b"),
        // What is there before the first command: copied up with all it has, taken away, hidden and made anew.
        15 => format!("echo {number} >> z/x; chmod 6{}5 z/x", random.below(8)),
        16 => "mv z/x z/y || mv z/y z/x".to_owned(),
        17 => format!("rm -f z/h{}", 1 + random.below(3)),
        18 => format!("truncate -s {number}000 z/s; echo end >> z/s"),
        19 => format!("chown {number}:7 z/null z/deep z"),
        20 => "rm -f z/gone; mkdir -p z/gone/inside".to_owned(),
        21 => "rm -rf z/gone; echo back > z/gone".to_owned(),
        22 => format!("rm -rf d; mkdir d; mkdir d/e; echo {number} > d/e/only"),
        _ => format!("touch {x}; truncate -s {number} {x}"),
    }
}

/// A few of them as one command.
pub fn changes(random: &mut Random) -> String {
    let count = 1 + random.below(3);
    let texts: Vec<String> = (0..count).map(|_| change(random)).collect();
    texts.join("; ")
}
