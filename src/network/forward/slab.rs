//! Things with numbers that are used again, but never taken for one another: a number of something that is gone finds
//! nothing, also when its place is taken.

/// A number: the place in the low half, in the high half how often the place was taken before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(pub u64);

/// See the module.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

/// The high bits are the caller's, for saying of what kind the number is.
const TURNS: u64 = (1 << 24) - 1;

impl<T> Slab<T> {
    /// The key that the next `insert` will return.
    pub fn next_key(&self) -> Key {
        let at = self.free.last().copied().unwrap_or(self.places.len() as u32);
        let turn = self.places.get(at as usize).map_or(0, |place| place.0);
        Key(u64::from(at) | (u64::from(turn) & TURNS) << 32)
    }

    /// Takes a place.
    pub fn insert(&mut self, thing: T) -> Key {
        let key = self.next_key();
        match self.free.pop() {
            Some(at) => self.places[at as usize].1 = Some(thing),
            None => self.places.push((0, Some(thing))),
        }
        key
    }

    /// What has this number.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (turn, thing) = self.places.get_mut(key.0 as u32 as usize)?;
        thing.as_mut().filter(|_| u64::from(*turn) & TURNS == key.0 >> 32)
    }

    /// Frees the place.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get_mut(key)?;
        let place = &mut self.places[key.0 as u32 as usize];
        place.0 = place.0.wrapping_add(1);
        self.free.push(key.0 as u32);
        place.1.take()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.places.iter().enumerate().filter_map(|(at, (turn, thing))| {
            let key = Key(at as u64 | (u64::from(*turn) & TURNS) << 32);
            Some((key, thing.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_number_finds_nothing() {
        let mut slab = Slab::default();
        let (a, next) = (slab.insert('a'), slab.next_key());
        let b = slab.insert('b');
        assert_eq!(next, b);
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c');
        assert_ne!(a, c);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!((slab.remove(a), slab.len()), (None, 2));
        assert_eq!(slab.iter().map(|(key, c)| (key, *c)).collect::<Vec<_>>(), [(c, 'c'), (b, 'b')]);
    }
}
