//! From start to end: how instances end, what the keeper shows, and that it may die at any moment. Needs root.

mod common;

use basalt_model::{Bytes, Exit, Limits, Millis};
use common::Machine;

#[test]
fn ends_are_told_apart_and_nothing_is_left() {
    let machine = Machine::new();
    let check = |id: &str, script: &str, expected: Exit, lines: &[&str]| {
        machine.start(id, 1, machine.release(script));
        let (exit, last) = machine.ended(id);
        assert_eq!(
            (exit, last.as_slice()),
            (expected, lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>().as_slice()),
            "{script}"
        );
    };
    check("a-1-1", "echo $GREETING; echo oh >&2; exit 3", Exit::Code(3), &["hello", "oh"]);
    check("a-1-2", "kill -SEGV $$", Exit::Signal(11), &[]);
    check("a-1-3", "exit 0", Exit::Code(0), &[]);
    machine.finish();
}
