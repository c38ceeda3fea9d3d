//! Trees of lines.

/// A line with lines below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// The line.
    pub text: String,
    /// What is below it.
    pub below: Vec<Node>,
}

impl Node {
    /// Returns a line with nothing below it.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), below: Vec::new() }
    }

    /// Puts a node below.
    pub fn push(&mut self, node: Self) {
        self.below.push(node);
    }

    /// Puts a line below.
    pub fn line(&mut self, text: impl Into<String>) {
        self.push(Self::new(text));
    }

    /// Returns the tree as lines, each ended by a line feed. Further lines of a node's text stand below its first; the
    /// branches are passed through `branch`, for example to colour them.
    pub fn draw(&self, branch: &dyn Fn(&str) -> String) -> String {
        let mut out = String::new();
        self.draw_at(&mut out, "", "", branch);
        out
    }

    fn draw_at(&self, out: &mut String, first: &str, others: &str, branch: &dyn Fn(&str) -> String) {
        for (n, line) in self.text.split('\n').enumerate() {
            let stem = match (n, self.below.is_empty()) {
                (0, _) => first.to_owned(),
                (_, true) => format!("{others}  "),
                (_, false) => format!("{others}│ "),
            };
            out.push_str(&branch(&stem));
            out.push_str(line);
            out.push('\n');
        }
        for (n, node) in self.below.iter().enumerate() {
            let (head, tail) = if n + 1 == self.below.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            node.draw_at(out, &format!("{others}{head}"), &format!("{others}{tail}"), branch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches() {
        let mut root = Node::new("root");
        let mut a = Node::new("a");
        a.line("a1\nmore of a1");
        a.line("a2");
        root.push(a);
        root.line("b");
        assert_eq!(root.draw(&str::to_owned), "root\n├─ a\n│  ├─ a1\n│  │    more of a1\n│  └─ a2\n└─ b\n");
    }
}
