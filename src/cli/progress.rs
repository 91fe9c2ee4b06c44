//! How far a pull or a push is: a bar for each layer where stderr is a terminal, docker's lines where it is not, nothing where that
//! is asked for.

use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::out;
use crate::event::{Event, Pulling, Pushing};

/// Redrawn so often in a second.
const HZ: u8 = 10;
const BAR: &str = "{prefix}: {msg:12} [{bar:40}] {bytes}/{total_bytes}";
const TEXT: &str = "{prefix}: {msg}";

/// Where the line goes that says what is pulled: it is part of what `pull` prints, and no part of what `run` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Headline {
    Stdout,
    Stderr,
}

/// See the module.
pub(super) struct Display {
    headline: Headline,
    quiet: bool,
    bars: Option<MultiProgress>,
    layers: HashMap<String, Bar>,
}

struct Bar {
    bar: ProgressBar,
    has_arrived: bool,
    is_drawn: bool,
}

impl Display {
    pub(super) fn new(headline: Headline, quiet: bool) -> Display {
        let is_live = !quiet && rustix::termios::isatty(rustix::stdio::stderr());
        let target = || ProgressDrawTarget::stderr_with_hz(HZ);
        let bars = is_live.then(|| MultiProgress::with_draw_target(target()));
        Display { headline, quiet, bars, layers: HashMap::new() }
    }

    /// Shows an event.
    pub(super) fn tell(&mut self, event: Event) {
        match event {
            Event::Warning(text) => self.line(&format!("dhow: warning: {text}\n")),
            _ if self.quiet => {}
            Event::Missing(name) => self.line(&format!("Unable to find image '{name}' locally\n")),
            Event::PullingFrom { tag, repository } => {
                // The bars of what was pulled before stay as they are.
                self.layers.clear();
                let text = format!("{tag}: Pulling from {repository}\n");
                match self.headline {
                    // A reader that went away is told by the next thing that is printed.
                    Headline::Stdout => self.suspended(|| drop(out::out(&text))),
                    Headline::Stderr => self.line(&text),
                }
            }
            Event::Pulling { what, state } => match self.bars {
                Some(_) => self.draw(what, state),
                None => self.say(&what, state),
            },
            Event::Pushing { what, state } => match self.bars {
                Some(_) => self.draw_push(what, &state),
                None if is_passing(&state) => {}
                None => out::err(&format!("{what}: {}\n", push_word(&state))),
            },
            _ => {}
        }
    }

    /// A line of its own, on stderr.
    fn line(&self, text: &str) {
        self.suspended(|| out::err(text));
    }

    /// Bars out of the way while something else is printed.
    fn suspended(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }

    fn say(&self, what: &str, state: Pulling) {
        // What changes all the time is for terminals.
        if !matches!(state, Pulling::Downloading { .. } | Pulling::Extracting { .. }) {
            out::err(&format!("{what}: {}\n", word(state)));
        }
    }

    fn layer(&mut self, what: String) -> Option<&mut Bar> {
        let bars = self.bars.as_ref()?;
        Some(self.layers.entry(what).or_insert_with_key(|what| {
            let bar = bars.add(ProgressBar::new(0).with_style(style(TEXT)).with_prefix(what.clone()));
            Bar { bar, has_arrived: false, is_drawn: false }
        }))
    }

    fn draw_push(&mut self, what: String, state: &Pushing) {
        let Some(layer) = self.layer(what) else { return };
        match state {
            Pushing::Preparing => {
                layer.bar.set_message(push_word(state));
                layer.bar.tick();
            }
            Pushing::Compressing { done, total } | Pushing::Uploading { done, total } => {
                layer.show(*done, *total, push_word(state));
            }
            _ => {
                layer.bar.set_style(style(TEXT));
                layer.bar.finish_with_message(push_word(state));
            }
        }
    }

    fn draw(&mut self, what: String, state: Pulling) {
        let Some(layer) = self.layer(what) else { return };
        match state {
            // It is unpacked while it arrives; how much of it is here is what one waits for.
            Pulling::Extracting { .. } if !layer.has_arrived => (),
            Pulling::Downloading { done, total } | Pulling::Extracting { done, total } => {
                layer.show(done, total, word(state));
            }
            Pulling::Downloaded => {
                layer.has_arrived = true;
                layer.bar.set_message(word(state));
            }
            Pulling::Done | Pulling::Exists => {
                layer.bar.set_style(style(TEXT));
                layer.bar.finish_with_message(word(state));
            }
            Pulling::Queued | Pulling::Waiting => {
                layer.bar.set_message(word(state));
                layer.bar.tick();
            }
        }
    }
}

impl Bar {
    fn show(&mut self, done: u64, total: u64, message: impl Into<std::borrow::Cow<'static, str>>) {
        if !self.is_drawn {
            self.bar.set_style(style(BAR).progress_chars("=> "));
            self.is_drawn = true;
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        self.bar.set_message(message);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Docker's words.
fn word(state: Pulling) -> &'static str {
    match state {
        Pulling::Exists => "Already exists",
        Pulling::Queued => "Pulling fs layer",
        Pulling::Waiting => "Waiting",
        Pulling::Downloading { .. } => "Downloading",
        Pulling::Downloaded => "Download complete",
        Pulling::Extracting { .. } => "Extracting",
        Pulling::Done => "Pull complete",
    }
}

/// Whether it changes all the time, which is for terminals.
fn is_passing(state: &Pushing) -> bool {
    matches!(state, Pushing::Compressing { .. } | Pushing::Uploading { .. })
}

/// Docker's words, as far as it has any.
fn push_word(state: &Pushing) -> String {
    match state {
        Pushing::Preparing => "Preparing".to_owned(),
        Pushing::Compressing { .. } => "Compressing".to_owned(),
        Pushing::Uploading { .. } => "Pushing".to_owned(),
        Pushing::Pushed => "Pushed".to_owned(),
        Pushing::Exists => "Layer already exists".to_owned(),
        Pushing::Mounted(from) => format!("Mounted from {from}"),
        Pushing::Foreign => "Skipped foreign layer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_well_formed() {
        for template in [BAR, TEXT] {
            assert!(ProgressStyle::with_template(template).is_ok());
        }
    }

    #[test]
    fn a_layer_keeps_one_bar_through_all_its_states() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let layers = HashMap::new();
        let mut display = Display { headline: Headline::Stderr, quiet: false, bars: Some(bars), layers };
        let states = [
            Pulling::Queued,
            Pulling::Extracting { done: 1, total: 9 },
            Pulling::Downloading { done: 3, total: 9 },
            Pulling::Downloaded,
            Pulling::Extracting { done: 8, total: 9 },
        ];
        for state in states {
            display.tell(Event::Pulling { what: "a".into(), state });
        }
        let bar = &display.layers["a"].bar;
        assert_eq!((bar.position(), bar.length(), bar.message()), (8, Some(9), "Extracting".into()));
        display.tell(Event::Pulling { what: "a".into(), state: Pulling::Done });
        assert!(display.layers["a"].bar.is_finished());
    }

    #[test]
    fn a_pushed_layer_ends_in_words() {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
        let layers = HashMap::new();
        let mut display = Display { headline: Headline::Stdout, quiet: false, bars: Some(bars), layers };
        let mounted = Pushing::Mounted("a/b".into());
        for state in [Pushing::Preparing, Pushing::Uploading { done: 1, total: 2 }, mounted] {
            display.tell(Event::Pushing { what: "a".into(), state });
        }
        let bar = &display.layers["a"].bar;
        assert!(bar.is_finished() && bar.message() == "Mounted from a/b", "{}", bar.message());
    }
}
