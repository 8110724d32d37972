//! A VM of an image that is not here: it is pulled first (R-IMG-8).

mod registry;

use banger_testkit::Home;
use registry::{Registry, boxed};

#[test]
fn a_vm_is_made_of_an_image_that_is_not_here() {
    let home = Home::new();
    let registry = Registry::start(&home, false);
    registry.push(&home, &boxed(&home), "box:1");
    let name = format!("127.0.0.1:{}/box:1", registry.port);
    let run = [
        "run",
        "--rm",
        "--image",
        &name,
        "--",
        "cat",
        "/etc/os-release",
    ];
    let first = home.banger(&run).exits(0);
    assert_eq!(first.out().trim(), "ID=box");
    assert!(first.err().contains("layer"), "{}", first.err());
    // Here now, and the registry is not asked.
    drop(registry);
    let again = home.banger(&run).exits(0);
    assert_eq!(again.out().trim(), "ID=box");
    home.banger(&["vm", "create", "--name", "dev", "--image", &name])
        .exits(0);
    assert_eq!(home.show("dev")["image"], name.as_str());
    // What neither is here nor can be had is told with both reasons.
    let run = home
        .banger(&["run", "--rm", "--image", "127.0.0.1:1/none", "--", "true"])
        .exits(125);
    let told = run.err();
    assert!(
        told.contains("no image is called '127.0.0.1:1/none'")
            && told.contains("127.0.0.1:1 cannot be reached"),
        "{told}"
    );
    home.finish();
}
