//! Work on several layers at once: hashing, decompressing and unpacking each keep a processor busy.
//!
//! The threads end before [`map`] returns; none lives while a name space is made.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use anyhow::Result;

use crate::event::Event;
use crate::event::Sink;

/// Where the threads report to; whoever called [`map`] passes it on.
pub type Progress = mpsc::Sender<Event>;

/// Does `work` on every job, on as many threads as there are processors, and returns the results in the order of the
/// jobs. The first error ends it: jobs that were not begun are left.
pub fn map<T: Send, R: Send>(
    jobs: Vec<T>,
    events: Sink<'_>,
    work: impl Fn(T, &Progress) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let n_threads = std::thread::available_parallelism().map_or(2, usize::from).min(16);
    map_on(n_threads, jobs, events, work)
}

/// [`map`], on so many threads: for work that waits for something else than a processor.
pub fn map_on<T: Send, R: Send>(
    n_threads: usize,
    jobs: Vec<T>,
    events: Sink<'_>,
    work: impl Fn(T, &Progress) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let n_threads = n_threads.min(jobs.len());
    let queue = Mutex::new(jobs.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..n_threads {
            let progress = sender.clone();
            scope.spawn(|| {
                let progress = progress;
                while !stop.load(Ordering::Relaxed) {
                    let Some((at, job)) = queue.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                        break;
                    };
                    let result = work(job, &progress);
                    stop.fetch_or(result.is_err(), Ordering::Relaxed);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((at, result));
                }
            });
        }
        drop(sender);
        receiver.into_iter().for_each(events);
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Reads, and reports now and then how far it got.
pub struct Watched<'a, R> {
    input: R,
    what: String,
    done: u64,
    total: u64,
    reported: u64,
    progress: &'a Progress,
}

impl<'a, R> Watched<'a, R> {
    /// Watches `input`, of which there are `total` bytes.
    pub fn new(input: R, what: &str, total: u64, progress: &'a Progress) -> Watched<'a, R> {
        Watched { input, what: what.to_owned(), done: 0, total, reported: 0, progress }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(buffer)?;
        self.done += n as u64;
        if self.done - self.reported >= 4 << 20 || n == 0 && self.reported < self.done {
            self.reported = self.done;
            // Nobody listens any more only when everything is over.
            let event = Event::Unpacking { what: self.what.clone(), done: self.done, total: self.total };
            let _ = self.progress.send(event);
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_their_order_and_events_arrive() {
        let mut events = 0;
        let squares = map((0..50u64).collect(), &mut |_| events += 1, |n, progress| {
            io::copy(&mut Watched::new(&b"abc"[..], "x", 3, progress), &mut io::sink())?;
            Ok(n * n)
        });
        assert_eq!(squares.unwrap(), (0..50).map(|n| n * n).collect::<Vec<_>>());
        assert_eq!(events, 50);
    }

    #[test]
    fn an_error_ends_it() {
        let result =
            map(vec![1, 2, 3], &mut |_| {}, |n, _| if n == 2 { anyhow::bail!("two") } else { Ok(n) });
        assert_eq!(result.unwrap_err().to_string(), "two");
        assert!(map(Vec::<u8>::new(), &mut |_| {}, |n, _| Ok(n)).unwrap().is_empty());
    }
}
