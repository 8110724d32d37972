//! What came of an operation.

use banger_wire::api::{Event, ImageView, VmView};
use serde_json::Value;

/// What came of an operation.
#[derive(Debug)]
pub enum Made {
    /// A VM that runs.
    Vm(VmView),
    /// An image.
    Image(Box<ImageView>),
    /// The answer of a method that answers with one object.
    Answer(Value),
}

impl Made {
    /// As `operation.show` tells it.
    pub fn value(&self) -> Option<Value> {
        match self {
            Made::Vm(vm) => serde_json::to_value(vm).ok(),
            Made::Image(image) => serde_json::to_value(image).ok(),
            Made::Answer(value) => Some(value.clone()),
        }
    }

    /// What the stream of an operation that made this ends with.
    pub fn last_events(&self) -> Vec<Event> {
        match self {
            Made::Vm(vm) => vec![Event::Done {
                vm: Some(Box::new(vm.clone())),
            }],
            Made::Image(image) => {
                let image = image.clone();
                vec![Event::Image { image }, Event::Done { vm: None }]
            }
            Made::Answer(_) => vec![Event::Done { vm: None }],
        }
    }
}
