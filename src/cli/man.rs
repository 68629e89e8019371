//! Manual pages, section 8, from the same table as everything else.

use super::help::{about, spelling};
use super::shared::Global;
use super::table::{Flag, HELP, Page};
use super::verbs::PAGES;

/// Every page as file name and text.
pub fn pages() -> Vec<(String, String)> {
    let shown = PAGES.iter().filter(|page| !page.hidden);
    let mut pages = vec![("deja.8".to_owned(), overview())];
    pages.extend(shown.map(|page| (format!("deja-{}.8", dashed(page)), verb(page))));
    pages
}

/// The name of a page about a verb of two words.
fn dashed(page: &Page) -> String {
    page.name.replace(' ', "-")
}

fn overview() -> String {
    let mut text = heading("DEJA", "deja", "Open Container Initiative runtime");
    text.push_str(".SH SYNOPSIS\n.B deja\n[global flags]\n.I verb\n[flags] [arguments]\n.SH VERBS\n");
    for page in PAGES.iter().filter(|page| !page.hidden) {
        text.push_str(&format!(".TP\n.BR deja\\-{} (8)\n{}\n", escape(&dashed(page)), escape(page.summary)));
    }
    text.push_str(".SH GLOBAL FLAGS\n");
    flags(&mut text, Global::OWN.iter().filter(|flag| !flag.hidden));
    text.push_str(
        ".SH EXIT STATUS\n.B run\nand\n.B exec\ngive the status of the program, or 128 and the number of the signal \
         that ended it. A failure of deja itself gives 1, and 255 for\n.BR exec .\n",
    );
    text
}

fn verb(page: &Page) -> String {
    let name = format!("deja-{}", dashed(page));
    let mut text = heading(&name.to_uppercase(), &name, page.summary);
    text.push_str(".SH SYNOPSIS\n");
    for form in page.arguments.split("  |  ") {
        text.push_str(&format!(".B deja {}\n[flags] {}\n.br\n", page.name, escape(form)));
    }
    text.push_str(".SH DESCRIPTION\n");
    for line in about(page) {
        text.push_str(&format!("{}\n", escape(line)));
    }
    text.push_str(".SH FLAGS\n");
    flags(&mut text, page.shown_flags().chain([&HELP]));
    text.push_str(&format!(".SH EXAMPLE\n.nf\ndeja {}\n.fi\n", escape(page.example)));
    text.push_str(".SH SEE ALSO\n.BR deja (8)\n");
    text
}

fn heading(title: &str, name: &str, summary: &str) -> String {
    format!(".TH {title} 8\n.SH NAME\n{} \\- {}\n", escape(name), escape(summary))
}

fn flags(text: &mut String, flags: impl Iterator<Item = &'static Flag>) {
    for flag in flags {
        text.push_str(&format!(".TP\n.B {}\n{}\n", escape(&spelling(flag)), escape(flag.help)));
    }
}

/// Keeps dashes as typed and no line from being taken for a macro.
fn escape(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
