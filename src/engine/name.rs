//! Names for containers that were given none: `brisk_harbour`. The words are ours, of wind, water and boats.
//!
//! Invariant: pure. Randomness is given, and whether a name is free is for the caller to find out.

/// What a name starts with.
#[rustfmt::skip] // One word a line would hide the code.
const ADJECTIVES: &[&str] = &[
    "able", "agile", "amber", "anchored", "azure", "bold", "breezy", "bright", "brisk", "buoyant", "calm",
    "candid", "cheerful", "clear", "coastal", "cobalt", "copper", "coral", "crisp", "daring", "deft",
    "drifting", "eager", "early", "eastern", "fair", "fearless", "fleet", "floating", "foamy", "free",
    "fresh", "gallant", "gentle", "gilded", "gleaming", "golden", "hardy", "hearty", "humming", "indigo",
    "jaunty", "jolly", "keen", "kindly", "laughing", "lively", "lofty", "lucky", "lunar", "mellow", "merry",
    "misty", "moonlit", "nimble", "northern", "patient", "pearly", "placid", "plucky", "proud", "quiet",
    "rolling", "salty", "scarlet", "seaworthy", "serene", "shining", "silver", "skilful", "southern",
    "spirited", "steady", "stout", "sturdy", "sunny", "swift", "tidal", "trusty", "vivid", "western",
    "windward", "wily", "zesty",
];

/// What a name ends with.
#[rustfmt::skip] // One word a line would hide the code.
const NOUNS: &[&str] = &[
    "albatross", "anchor", "archipelago", "atoll", "backstay", "ballast", "barge", "barnacle", "barque",
    "bay", "beacon", "binnacle", "bollard", "boom", "bosun", "bowline", "bowsprit", "breaker", "breeze",
    "brig", "bulkhead", "buoy", "cape", "capstan", "caravel", "catamaran", "channel", "chart", "chronometer",
    "cleat", "clipper", "coble", "compass", "cormorant", "corvette", "coxswain", "current", "cutter", "davit",
    "deck", "dinghy", "dock", "doldrum", "dolphin", "dory", "dunnage", "eddy", "estuary", "fathom", "felucca",
    "fender", "ferry", "fjord", "forecastle", "frigate", "gaff", "galleon", "galley", "gangway", "gannet",
    "gull", "gunwale", "halyard", "harbour", "hatch", "haven", "hawser", "headland", "helm", "hull", "inlet",
    "isthmus", "jetty", "jib", "kayak", "keel", "ketch", "knot", "lagoon", "lanyard", "lateen", "launch",
    "lighter", "lighthouse", "log", "longboat", "lugger", "mariner", "marlin", "mast", "monsoon", "mooring",
    "narwhal", "oar", "outrigger", "paddle", "passage", "pelican", "petrel", "pier", "pilot", "pinnace",
    "porpoise", "port", "porthole", "prow", "quay", "raft", "reef", "regatta", "rigging", "roadstead", "rope",
    "rowlock", "rudder", "sail", "sampan", "sandbar", "schooner", "sculler", "seagull", "sextant", "shoal",
    "shore", "skiff", "skipper", "sloop", "sounding", "spinnaker", "spray", "starboard", "stern", "strait",
    "surf", "swell", "tender", "tern", "tide", "tiller", "topsail", "transom", "trawler", "trimaran",
    "tugboat", "voyage", "wake", "warp", "wave", "wharf", "wherry", "windlass", "xebec", "yard", "yawl",
];

/// A name from eight random bytes. `attempt` counts from 0: after a few names that were taken, a number is added, as
/// docker does, so that a machine with thousands of containers still finds one.
pub fn from_random(bytes: [u8; 8], attempt: u32) -> String {
    let random = u64::from_le_bytes(bytes);
    let (n_adjectives, n_nouns) = (ADJECTIVES.len() as u64, NOUNS.len() as u64);
    let adjective = ADJECTIVES[(random % n_adjectives) as usize];
    let noun = NOUNS[(random / n_adjectives % n_nouns) as usize];
    match attempt {
        0..3 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}{}", random / n_adjectives / n_nouns % 10_u64.pow(attempt.min(9))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_plain_and_differ() {
        for words in [ADJECTIVES, NOUNS] {
            assert!(words.iter().all(|w| w.len() > 1 && w.bytes().all(|b| b.is_ascii_lowercase())));
            let distinct: std::collections::BTreeSet<_> = words.iter().collect();
            assert_eq!(distinct.len(), words.len());
        }
        assert!(ADJECTIVES.len() >= 80 && NOUNS.len() >= 120);
    }

    #[test]
    fn names() {
        assert_eq!(from_random([0; 8], 0), "able_albatross");
        assert_eq!(from_random([1, 0, 0, 0, 0, 0, 0, 0], 0), "agile_albatross");
        assert!(from_random([0xff; 8], 3).ends_with(|c: char| c.is_ascii_digit()));
        for attempt in [0, 1, 3, 9, u32::MAX] {
            let name = from_random([0xab; 8], attempt);
            assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "{name}");
        }
    }
}
