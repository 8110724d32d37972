//! Makes the images and the kernel that homes of tests link to, so that no test's deadline pays
//! for it.

fn main() {
    println!("{}", banger_testkit::seed().display());
    for why in banger_testkit::image_seeds() {
        println!("{why}");
    }
}
