//! The command that a container is in the foreground of: what it says, and what its going away means.

use rustix::process::Signal;

use super::Control;
use super::relay::Relay;
use super::serve::Supervised;
use crate::store::journal;
use crate::sys;

impl Supervised {
    /// Hears the command, or that it is gone.
    pub fn control_step(&mut self) {
        let Some(control) = &self.control else { return };
        match control.receive::<Control>() {
            Ok(Some((Control::Signal(n), _))) => {
                self.hear_signal(n);
                self.signal_program(n);
            }
            Ok(Some((Control::Resize(rows, columns), _))) => self.resize(rows, columns),
            Ok(Some((Control::Detach, _))) => {
                self.begin.foreground = false;
                self.lose_command();
                self.data = None;
                self.running.iter_mut().flat_map(|r| &mut r.relays).for_each(Relay::let_go);
                journal::note(&self.store, &self.event("detach"));
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => {
                self.lose_command();
                if self.begin.foreground && !self.outlives_command() {
                    // The command was killed: the container is its child in spirit and goes too.
                    self.life.stays_down = true;
                    self.signal(Signal::KILL.as_raw());
                }
            }
        }
    }

    /// From now on we are there without a command, perhaps for long: what starting took, and a copy of the command has of
    /// it, is given back.
    pub fn lose_command(&mut self) {
        self.control = None;
        sys::memory::give_back();
    }

    pub fn signal(&self, number: i32) {
        if let Some(running) = &self.running {
            let _ = sys::process::signal(&running.init.pidfd, number);
        }
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = self.running.as_ref().and_then(|running| running.terminal.as_ref()) {
            let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(terminal, size);
        }
    }

    /// A signal from whoever is in the foreground: what asks a program to end is meant for good.
    fn hear_signal(&mut self, number: i32) {
        let ends = [Signal::INT, Signal::TERM, Signal::QUIT, Signal::HUP, Signal::KILL];
        if number == self.record.stop_signal || ends.iter().any(|signal| signal.as_raw() == number) {
            self.life.stays_down = true;
            if !self.record.restart.is_no() {
                let _ = self.dir.mark_stopped();
            }
        }
    }
}
