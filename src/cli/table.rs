//! What a verb is, as data, and the macro that makes a table of flags and a struct of their values from one
//! list.

use std::ffi::OsString;

/// One flag.
#[derive(Debug)]
pub struct Flag {
    pub long: &'static str,
    pub short: Option<char>,
    /// What help calls the value; empty for a switch. Completion reads it too: FILE, DIR and `a|b|c`.
    pub value: &'static str,
    pub help: &'static str,
    /// Accepted for callers that still pass it, shown to nobody.
    pub hidden: bool,
}

impl Flag {
    pub fn takes_value(&self) -> bool {
        !self.value.is_empty()
    }
}

/// One verb.
#[derive(Debug)]
pub struct Page {
    pub name: &'static str,
    pub arguments: &'static str,
    /// One line.
    pub summary: &'static str,
    /// A few lines more, and an example.
    pub about: &'static str,
    pub example: &'static str,
    pub flags: &'static [&'static [Flag]],
    /// How many words may follow the flags.
    pub least: usize,
    pub most: usize,
    /// Everything after the first word belongs to somebody else, dashes included.
    pub stops_at_id: bool,
    pub hidden: bool,
}

impl Page {
    pub fn shown_flags(&self) -> impl Iterator<Item = &'static Flag> {
        self.flags.iter().flat_map(|group| group.iter()).filter(|flag| !flag.hidden)
    }
}

/// The second words of verbs of two words.
pub fn seconds(pages: &[&Page], first: &str) -> Vec<&'static str> {
    pages.iter().filter_map(|page| page.name.strip_prefix(first)?.strip_prefix(' ')).collect()
}

pub fn find(flags: &[&'static [Flag]], long: &str) -> Option<&'static Flag> {
    flags.iter().flat_map(|group| group.iter()).chain([&HELP]).find(|flag| flag.long == long)
}

pub fn find_short(flags: &[&'static [Flag]], short: char) -> Option<&'static Flag> {
    flags.iter().flat_map(|group| group.iter()).chain([&HELP]).find(|flag| flag.short == Some(short))
}

/// Every verb has it.
pub static HELP: Flag =
    Flag { long: "help", short: Some('h'), value: "", help: "show this help", hidden: false };

/// The value of a flag as it stands on the command line; a switch may have none.
pub type Given = Option<OsString>;

/// Something that holds the values of flags.
pub trait FlagSet {
    /// Stores the value of a flag of the table; the error is the reason why the value is none.
    fn set(&mut self, long: &str, given: Given) -> Result<(), String>;
}

/// A list of flags: the struct of their values, their table, and the way from one to the other.
macro_rules! flags {
    ($(#[$meta:meta])* $name:ident {
        $($field:ident: $type:ty = $long:literal $(| $short:literal)?, $value:literal, $help:literal $(, $hidden:ident)?;)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Default, Clone, PartialEq)]
        pub struct $name { $(pub $field: $type,)* }

        impl $name {
            pub(super) const OWN: &'static [Flag] = &[$(Flag {
                long: $long,
                short: [$(Some($short),)? None][0],
                value: $value,
                help: $help,
                hidden: [$(stringify!($hidden).len() > 0,)? false][0],
            },)*];
        }

        impl FlagSet for $name {
            #[allow(unused_variables, reason = "some verbs have no flags")]
            fn set(&mut self, long: &str, given: Given) -> Result<(), String> {
                $(if long == $long {
                    return Slot::put(&mut self.$field, given);
                })*
                Err("no such flag".to_owned())
            }
        }
    };
}

pub(super) use flags;
