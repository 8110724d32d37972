//! Makes the image and kernel that every home of a test links to, so that no test's deadline pays
//! for it.

fn main() {
    println!("{}", banger_testkit::seed().display());
}
