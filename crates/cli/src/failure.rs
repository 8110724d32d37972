//! The one place where failures become text and exit status: what, why, and the next command.

use crate::render::plain_lines;
use banger_wire::api::{ApiError, ClientError, Pullable, sources};
use std::{
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

/// banger failed, as opposed to the command it ran (R-CLI: exit status).
pub const BANGER_FAILED: u8 = 125;

/// A failure ready to be told.
#[derive(Debug)]
pub struct Failure {
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    operation: Option<Box<str>>,
    /// The image that is not here and that a registry may have.
    pullable: Option<Box<Pullable>>,
    /// What else is wrong.
    also: Vec<Failure>,
}

impl Failure {
    /// A failure of the command line itself.
    pub fn new(message: impl Into<String>) -> Self {
        Failure {
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            operation: None,
            pullable: None,
            also: Vec::new(),
        }
    }

    /// Adds an error and its sources as causes.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(sources(error));
        self
    }

    /// Adds a cause that is told in words.
    #[must_use]
    pub fn because(mut self, why: &str) -> Self {
        self.causes.push(why.to_owned());
        self
    }

    /// Adds the next command to type.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The image that a registry may have, where nothing else is wrong than that it is not here.
    pub fn pullable(&self) -> Option<&str> {
        let only = self.also.is_empty();
        let pullable = self.pullable.as_ref().filter(|_| only)?;
        Some(&pullable.reference)
    }

    /// The same failure, and another that came of trying to mend it.
    #[must_use]
    pub fn and(mut self, other: &Failure) -> Self {
        self.causes.push(other.what());
        if let Some(hint) = &other.hint {
            let here = self.hint.take();
            self.hint = Some(here.map_or_else(|| hint.clone(), |here| format!("{here}; {hint}")));
        }
        self
    }

    /// What and why, on one line.
    pub fn what(&self) -> String {
        let mut text = self.message.clone();
        for cause in &self.causes {
            text.push_str(": ");
            text.push_str(cause);
        }
        text
    }

    /// The text for stderr, one fact per line.
    pub fn text(&self) -> String {
        let mut text = self.what_and_way_out();
        for other in &self.also {
            text.push('\n');
            text.push_str(&other.text());
        }
        if let Some(operation) = &self.operation {
            text.push_str("\noperation: ");
            text.push_str(operation);
        }
        text
    }

    fn what_and_way_out(&self) -> String {
        let mut text = format!("banger: {}", self.what());
        if let Some(hint) = &self.hint {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }

    /// Prints it and gives the exit status.
    pub fn report(&self) -> ExitCode {
        tell(&plain_lines(&self.text()));
        ExitCode::from(BANGER_FAILED)
    }
}

/// Says a line on stderr; if that is closed or full there is nobody to tell.
pub fn tell(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure {
            message: error.message,
            causes: error.cause,
            hint: error.hint,
            operation: error.op_id.map(|id| id.to_string().into()),
            pullable: error.pullable,
            also: error.also.into_iter().map(Failure::from).collect(),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Api(error) => error.into(),
            other => {
                let mut failure = Failure::new(other.to_string());
                failure.causes.extend(sources(&other));
                failure.hint("banger daemon status")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_wire::api::Code;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let mut error = ApiError::new(Code::NotFound, "no VM is called 'x'").hint("banger vm list");
        error.cause.push("its row is missing".into());
        assert_eq!(
            Failure::from(error).text(),
            "banger: no VM is called 'x': its row is missing\nhint: banger vm list"
        );
    }

    /// R-SVC-8: each of several failures is told with its own way out, the operation once.
    #[test]
    fn several_failures_are_all_told() {
        let told = [("no image", "leave it out"), ("no QEMU", "install it")];
        let errors = told.map(|(what, hint)| ApiError::new(Code::NotFound, what).hint(hint));
        let mut error = ApiError::all(errors).unwrap_err();
        error.op_id = Some("00ab12cd34ef".parse().unwrap());
        assert_eq!(
            Failure::from(error).text(),
            "banger: no image\nhint: leave it out\nbanger: no QEMU\nhint: install it\noperation: 00ab12cd34ef"
        );
    }
}
