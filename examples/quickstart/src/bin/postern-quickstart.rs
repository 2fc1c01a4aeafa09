//! Placeholder so that the workspace loads; its owner is writing it.
fn main() {}
