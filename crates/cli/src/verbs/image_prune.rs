//! `image prune`: images that nobody uses go, after a question.

use super::{Several, image::names, print_json, print_text, prune};
use crate::{
    args::ImagePruneArgs,
    connection::Daemon,
    failure::{Failure, tell},
    render,
};
use banger_wire::api::{ImageDelete, ImageList, ImageShow, ImageView};
use std::process::ExitCode;

/// Says which images are there to go, asks, deletes them, and says which went.
pub async fn prune(args: ImagePruneArgs) -> Result<ExitCode, Failure> {
    let daemon = Daemon::of_this_user()?;
    let found: Vec<ImageView> = daemon.call(&ImageList {}).await?;
    let found: Vec<&ImageView> = found.iter().filter(|i| goes(i, args.all)).collect();
    if args.dry_run {
        told(found, &args)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force {
        prune::somebody_is_there("banger image prune --force; --dry-run says what would go")?;
        if !found.is_empty() && !prune::agreed(&listed(&found), bytes(&found))? {
            tell("nothing was removed");
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut gone = Several::new();
    for image in found {
        gone.add(delete(&daemon, image).await.map(|()| image));
    }
    told(gone.good, &args)?;
    Ok(gone.status)
}

/// Whether it is nobody's: of no VM, and of no name unless named ones are meant too.
fn goes(image: &ImageView, all: bool) -> bool {
    image.used_by.is_empty() && (all || image.names.is_empty())
}

/// Deletes an image that is still as it was told; a VM that uses it meanwhile keeps it.
async fn delete(daemon: &Daemon, image: &ImageView) -> Result<(), Failure> {
    let id = image.id.clone();
    let now = daemon.call(&ImageShow { image: id.clone() }).await?;
    if now.names != image.names {
        return Err(
            Failure::new(format!("image {id} has other names now, and stays"))
                .hint("banger image prune"),
        );
    }
    let request = ImageDelete {
        image: id,
        force: true,
    };
    daemon.call(&request).await.map(drop)
}

fn bytes(images: &[&ImageView]) -> u64 {
    images.iter().map(|image| image.disk_usage).sum()
}

fn told(images: Vec<&ImageView>, args: &ImagePruneArgs) -> Result<(), Failure> {
    if args.json {
        return print_json(&images);
    }
    let sum = if args.dry_run { "would free" } else { "freed" };
    print_text(&format!(
        "{}{sum} {}\n",
        listed(&images),
        render::size(bytes(&images))
    ))
}

fn listed(images: &[&ImageView]) -> String {
    if images.is_empty() {
        return String::new();
    }
    let now = render::now();
    let row = |image: &&ImageView| {
        vec![
            names(image),
            image.id.clone(),
            render::size(image.disk_usage),
            render::age(now, image.created_at),
        ]
    };
    let rows: Vec<_> = images.iter().map(row).collect();
    render::table(&["NAME", "ID", "ON DISK", "CREATED"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_name_or_a_vm_stays() {
        let image = |names: &[&str], used_by: &[&str]| -> ImageView {
            let json = serde_json::json!({
                "id": "0123456789ab", "names": names, "digest": "", "size": 0, "disk_usage": 0,
                "created_at": 0, "arch": "", "used_by": used_by,
            });
            serde_json::from_value(json).expect("an image")
        };
        for (names, used_by, goes_unnamed, goes_all) in [
            (&[][..], &[][..], true, true),
            (&["a"], &[], false, true),
            (&[], &["vm"], false, false),
            (&["a"], &["vm"], false, false),
        ] {
            let image = image(names, used_by);
            assert_eq!(goes(&image, false), goes_unnamed, "{image:?}");
            assert_eq!(goes(&image, true), goes_all, "{image:?}");
        }
    }
}
