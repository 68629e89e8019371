//! Shapes as SVG. Pure.

use std::fmt::Write;

use super::{Anchor, HEIGHT, Shape, WIDTH, short};

pub fn write(shapes: &[Shape]) -> String {
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for shape in shapes {
        let line = match shape {
            Shape::Lines { pieces, colour, width, opacity } => format!(
                "<path d=\"{}\" fill=\"none\" stroke=\"#{colour:06x}\" stroke-width=\"{width}\" \
                 stroke-opacity=\"{opacity}\" stroke-linejoin=\"round\"/>",
                pieces.iter().map(|piece| path(piece)).collect::<Vec<_>>().join(" ")
            ),
            Shape::Text { at: (x, y), text, anchor, size, colour } => format!(
                "<text x=\"{}\" y=\"{}\" font-size=\"{size}\" text-anchor=\"{}\" fill=\"#{colour:06x}\">{}</text>",
                short(*x),
                short(*y),
                match anchor {
                    Anchor::Start => "start",
                    Anchor::Middle => "middle",
                    Anchor::End => "end",
                },
                escaped(text)
            ),
        };
        writeln!(out, "{line}").expect("a string takes everything");
    }
    out.push_str("</svg>\n");
    out
}

fn path(piece: &[(f64, f64)]) -> String {
    let points: Vec<String> = piece.iter().map(|(x, y)| format!("{} {}", short(*x), short(*y))).collect();
    format!("M{}", points.join(" L"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
