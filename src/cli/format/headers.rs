//! The headings and default columns of each list. Data only.

/// Headings by field.
pub type Headings = [(&'static str, &'static str)];

/// `ps`
pub const CONTAINERS: &Headings = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("HealthStatus", "HEALTH STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];
/// The columns of `ps`.
pub const CONTAINERS_TABLE: &str =
    "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
/// The columns of `ps -s`.
pub const CONTAINERS_SIZE_TABLE: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}";

/// `images`
pub const IMAGES: &Headings = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("ReadOnly", "R/O"),
];
/// The columns of `images`.
pub const IMAGES_TABLE: &str = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";
/// The columns of `images --digests`.
pub const IMAGES_DIGESTS_TABLE: &str =
    "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}";

/// `history`
pub const HISTORY: &Headings = &[
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];
/// The columns of `history`.
pub const HISTORY_TABLE: &str = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}";

/// `search`
pub const SEARCH: &Headings = &[
    ("Name", "NAME"),
    ("Description", "DESCRIPTION"),
    ("StarCount", "STARS"),
    ("IsOfficial", "OFFICIAL"),
    ("IsAutomated", "AUTOMATED"),
];
/// The columns of `search`.
pub const SEARCH_TABLE: &str = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}";

/// `search --list-tags`
pub const TAGS: &Headings = &[("Name", "NAME"), ("Tag", "TAG")];
/// The columns of `search --list-tags`.
pub const TAGS_TABLE: &str = "table {{.Name}}\t{{.Tag}}";

/// `volume ls`
pub const VOLUMES: &Headings = &[
    ("Name", "VOLUME NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("Mountpoint", "MOUNTPOINT"),
    ("Labels", "LABELS"),
    ("Links", "LINKS"),
    ("Size", "SIZE"),
    ("Availability", "AVAILABILITY"),
    ("Group", "GROUP"),
    ("Status", "STATUS"),
];
/// The columns of `volume ls`.
pub const VOLUMES_TABLE: &str = "table {{.Driver}}\t{{.Name}}";

/// `network ls`
pub const NETWORKS: &Headings = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];
/// The columns of `network ls`.
pub const NETWORKS_TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";

/// `stats`
pub const STATS: &Headings = &[
    ("Container", "CONTAINER"),
    ("ID", "CONTAINER ID"),
    ("Name", "NAME"),
    ("CPUPerc", "CPU %"),
    ("MemUsage", "MEM USAGE / LIMIT"),
    ("MemPerc", "MEM %"),
    ("NetIO", "NET I/O"),
    ("BlockIO", "BLOCK I/O"),
    ("PIDs", "PIDS"),
];
/// The columns of `stats`.
pub const STATS_TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}";

/// `system df`
pub const DISK_USAGE: &Headings = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];
/// The columns of `system df`.
pub const DISK_USAGE_TABLE: &str =
    "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_column_has_one_heading() {
        let tables = [
            (CONTAINERS, CONTAINERS_TABLE),
            (CONTAINERS, CONTAINERS_SIZE_TABLE),
            (IMAGES, IMAGES_TABLE),
            (IMAGES, IMAGES_DIGESTS_TABLE),
            (HISTORY, HISTORY_TABLE),
            (VOLUMES, VOLUMES_TABLE),
            (NETWORKS, NETWORKS_TABLE),
            (STATS, STATS_TABLE),
            (DISK_USAGE, DISK_USAGE_TABLE),
        ];
        for (headings, table) in tables {
            for column in table.strip_prefix("table ").unwrap().split('\t') {
                let field = column.strip_prefix("{{.").and_then(|c| c.strip_suffix("}}")).unwrap();
                assert_eq!(headings.iter().filter(|(f, _)| *f == field).count(), 1, "{field}");
            }
        }
    }
}
