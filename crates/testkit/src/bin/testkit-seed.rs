//! Makes the images and the kernel that homes of tests link to, so that no test's deadline pays
//! for it.

fn main() {
    println!("{}", banger_testkit::seed().display());
    if let Err(why) = banger_testkit::systemd_seed() {
        println!("no image with systemd: {why}");
    }
}
