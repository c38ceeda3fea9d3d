//! Names of Compose to names of a stack.

/// The longest name that a stack takes.
const LONGEST: usize = 40;

/// Returns the nearest name of at most 40 lowercase letters, digits and inner hyphens; `x` if nothing is left.
pub(crate) fn name(text: &str) -> String {
    let letters = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let mut name = String::new();
    for c in letters.take(LONGEST) {
        if c != '-' || !name.ends_with('-') {
            name.push(c);
        }
    }
    let name = name.trim_matches('-');
    if name.is_empty() { "x".to_owned() } else { name.to_owned() }
}

/// Returns whether a name of a variable says that its value is secret.
pub(crate) fn is_secret(variable: &str) -> bool {
    let upper = variable.to_ascii_uppercase();
    // What names a file with the secret is none itself.
    if upper.ends_with("_FILE") || upper.ends_with("_PATH") || upper.ends_with("_URL") && !upper.contains("PASS") {
        return false;
    }
    const WORDS: [&str; 9] =
        ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "APIKEY", "API_KEY", "PRIVATE_KEY", "ACCESS_KEY"];
    WORDS.iter().any(|word| upper.contains(word)) || upper.ends_with("_PASS") || upper.ends_with("_KEY_BASE")
}
