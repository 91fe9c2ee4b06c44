//! The `dhow` program: everything is in the library.
fn main() -> std::process::ExitCode {
    dhow::main()
}
