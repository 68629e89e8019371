//! What a verb is, as data, and the macros that make tables of flags and of verbs, and structs of their values,
//! from one list.

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

/// The second words of verbs of two words, as far as they are for people.
pub fn seconds(pages: &[&Page], first: &str) -> Vec<&'static str> {
    let shown = pages.iter().filter(|page| !page.hidden);
    shown.filter_map(|page| page.name.strip_prefix(first)?.strip_prefix(' ')).collect()
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

/// For each verb the struct of its words and flags, and its page.
macro_rules! pages {
    ($(
        $(#[doc = $about:literal])*
        $variant:ident $name:literal $arguments:literal $(, $property:ident)*;
        $summary:literal; $example:literal;
        $(with $shared:ident: $shared_type:ident;)?
        places { $($place:ident: $place_type:ty,)* }
        flags { $($field:ident: $type:ty = $long:literal $(| $short:literal)?, $value:literal, $help:literal $(, $hidden:ident)?;)* }
    )*) => {
        $(
            #[doc = $summary]
            #[derive(Debug, Default, Clone, PartialEq)]
            pub struct $variant {
                $(pub $shared: $shared_type,)?
                $(pub $place: $place_type,)*
                $(pub $field: $type,)*
            }

            impl FlagSet for $variant {
                #[allow(unused_variables, reason = "some verbs have no flags")]
                fn set(&mut self, long: &str, given: Given) -> Result<(), String> {
                    $(if long == $long {
                        return Slot::put(&mut self.$field, given);
                    })*
                    pages!(@rest self, long, given $(, $shared)?)
                }
            }

            impl $variant {
                pub(in crate::cli) const PAGE: Page = Page {
                    name: $name,
                    arguments: $arguments,
                    summary: $summary,
                    about: concat!($($about, "\n",)*),
                    example: $example,
                    flags: &[
                        $($shared_type::OWN,)?
                        &[$(Flag {
                            long: $long,
                            short: [$(Some($short),)? None][0],
                            value: $value,
                            help: $help,
                            hidden: [$(stringify!($hidden).len() > 0,)? false][0],
                        },)*],
                    ],
                    least: 0 $(+ <$place_type as Place>::LEAST)*,
                    most: 0usize $(.saturating_add(<$place_type as Place>::MOST))*,
                    stops_at_id: pages!(@has stops_at_id $($property)*),
                    hidden: pages!(@has hidden $($property)*),
                };

                #[allow(unused_mut, unused_variables, reason = "some verbs take no words")]
                pub(in crate::cli) fn place(&mut self, words: Vec<OsString>) -> Result<(), String> {
                    let mut words = words.into_iter();
                    $(Place::take(&mut self.$place, &mut words)?;)*
                    Ok(())
                }
            }
        )*
    };
    (@rest $self:ident, $long:ident, $given:ident) => { Err("no such flag".to_owned()) };
    (@rest $self:ident, $long:ident, $given:ident, $shared:ident) => { $self.$shared.set($long, $given) };
    (@has $wanted:ident) => { false };
    (@has stops_at_id stops_at_id $($rest:ident)*) => { true };
    (@has hidden hidden $($rest:ident)*) => { true };
    (@has $wanted:ident $other:ident $($rest:ident)*) => { pages!(@has $wanted $($rest)*) };
}

/// The table of verbs: what can be asked for, one variant each.
macro_rules! verbs {
    ($($variant:ident,)*) => {
        /// What to do, with everything it needs.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Verb {
            $($variant($variant),)*
            Version,
        }

        /// Every verb, in the order help shows them.
        pub static PAGES: &[&Page] = &[$(&$variant::PAGE,)*];

        impl Verb {
            pub(super) fn named(name: &str) -> Option<Verb> {
                match name {
                    $(_ if name == $variant::PAGE.name => Some(Verb::$variant($variant::default())),)*
                    "h" => Some(Verb::Help(Help::default())),
                    _ => None,
                }
            }

            pub fn page(&self) -> &'static Page {
                match self {
                    $(Verb::$variant(_) => &$variant::PAGE,)*
                    Verb::Version => &Help::PAGE,
                }
            }

            pub(super) fn place(&mut self, words: Vec<OsString>) -> Result<()> {
                let result = match self {
                    $(Verb::$variant(verb) => verb.place(words),)*
                    Verb::Version => Ok(()),
                };
                result.map_err(|reason| Failure::usage(reason).into())
            }
        }

        impl FlagSet for Verb {
            fn set(&mut self, long: &str, given: Given) -> Result<(), String> {
                match self {
                    $(Verb::$variant(verb) => verb.set(long, given),)*
                    Verb::Version => Ok(()),
                }
            }
        }
    };
}

pub(super) use {flags, pages, verbs};
