//! The stack, whole.

mod operations;
mod stack;
