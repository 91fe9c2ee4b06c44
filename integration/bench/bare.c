/* What the kernel itself costs: the system calls that a container with docker's defaults takes, and nothing else. No
 * parsing, no state, no supervisor, no log. The yardstick of `make bench`; not part of dhow.
 *
 * Usage: bare ROOTFS SCRATCH PROGRAM [ARG...]
 * As root: pid, mount, uts, ipc, net and cgroup name spaces, a cgroup per v1 controller (or one of v2). As a user: a user
 * name space as well (newuidmap's ranges where there are any), devices bound instead of made, no cgroup. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *const devices[] = {"null", "zero", "full", "random", "urandom", "tty"};
static const unsigned device_numbers[][2] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}};
static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"},
    {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"}, {"pts/ptmx", "dev/ptmx"}};
static const char *const masked_files[] = {"proc/kcore", "proc/keys", "proc/timer_list", "proc/interrupts"};
static const char *const masked_dirs[] = {"proc/acpi", "proc/scsi", "sys/firmware", "sys/devices/virtual/powercap"};
static const char *const read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void die(const char *what) {
    fprintf(stderr, "bare: %s: %s\n", what, strerror(errno));
    _exit(125);
}
#define MUST(call) do { if ((call) < 0) die(#call); } while (0)

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
    close(fd);
}

/* The cgroups of this run: one directory per hierarchy that can be written. */
static char cgroups[16][256];
static int n_cgroups;

static void make_cgroups(pid_t pid) {
    static const char *const v1[] = {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"};
    char procs[sizeof cgroups[0] + 32], text[32];
    snprintf(text, sizeof text, "%d", pid);
    for (size_t i = 0; i < COUNT(v1); i++) {
        snprintf(cgroups[n_cgroups], sizeof cgroups[0], "/sys/fs/cgroup/%s/bare-%d", v1[i], pid);
        if (mkdir(cgroups[n_cgroups], 0755) == 0) n_cgroups++;
    }
    if (n_cgroups == 0) {
        snprintf(cgroups[0], sizeof cgroups[0], "/sys/fs/cgroup/bare-%d", pid);
        if (mkdir(cgroups[0], 0755) == 0) n_cgroups = 1;
    }
    for (int i = 0; i < n_cgroups; i++) {
        snprintf(procs, sizeof procs, "%.255s/cgroup.procs", cgroups[i]);
        int fd = open(procs, O_WRONLY | O_CLOEXEC);
        /* A cpuset of v1 takes no process before it has processors and memory nodes: left out, as runc's copy of them. */
        if (fd >= 0) { (void)!write(fd, text, strlen(text)); close(fd); }
    }
}

static void make_dev(int as_root) {
    char at[64], from[64];
    MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    mode_t mask = umask(0);
    for (size_t i = 0; i < COUNT(devices); i++) {
        snprintf(at, sizeof at, "dev/%s", devices[i]);
        if (as_root) {
            MUST(mknod(at, S_IFCHR | 0666, makedev(device_numbers[i][0], device_numbers[i][1])));
        } else {
            snprintf(from, sizeof from, "/dev/%s", devices[i]);
            int fd = open(at, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
            if (fd < 0) die(at);
            close(fd);
            MUST(mount(from, at, NULL, MS_BIND, NULL));
        }
    }
    umask(mask);
    for (size_t i = 0; i < COUNT(links); i++) MUST(symlink(links[i][0], links[i][1]));
    MUST(mkdir("dev/pts", 0755));
    MUST(mkdir("dev/shm", 0755));
    MUST(mkdir("dev/mqueue", 0755));
    MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
    MUST(mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=67108864"));
    MUST(mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
}

static void mask_paths(void) {
    for (size_t i = 0; i < COUNT(masked_files); i++)
        if (mount("/dev/null", masked_files[i], NULL, MS_BIND, NULL) < 0 && errno != ENOENT) die(masked_files[i]);
    for (size_t i = 0; i < COUNT(masked_dirs); i++)
        if (mount("tmpfs", masked_dirs[i], "tmpfs", MS_RDONLY, "size=0k") < 0 && errno != ENOENT) die(masked_dirs[i]);
    for (size_t i = 0; i < COUNT(read_only); i++) {
        const char *p = read_only[i];
        if (mount(p, p, NULL, MS_BIND | MS_REC, NULL) < 0) {
            if (errno != ENOENT) die(p);
            continue;
        }
        MUST(mount(p, p, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    }
}

static void loopback_up(void) {
    struct ifreq request = {.ifr_name = "lo"};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    MUST(ioctl(fd, SIOCGIFFLAGS, &request));
    request.ifr_flags |= IFF_UP;
    MUST(ioctl(fd, SIOCSIFFLAGS, &request));
    close(fd);
}

static void drop_capabilities(void) {
    const unsigned keep = 0xa80425fb;
    for (int cap = 0; cap < 41; cap++)
        if (cap >= 32 || !(keep >> cap & 1)) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2] = {{keep, keep, 0}, {0, 0, 0}};
    MUST(syscall(SYS_capset, &header, data));
}

static int child(char **argv, int as_root, int go) {
    char byte, options[4096];
    const char *rootfs = argv[1];
    /* The parent writes the id maps and the cgroup first. */
    MUST(read(go, &byte, 1));
    if (!as_root) { MUST(setresgid(0, 0, 0)); MUST(setresuid(0, 0, 0)); }
    MUST(unshare(CLONE_NEWCGROUP));
    MUST(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=upper,workdir=work%s", rootfs, as_root ? "" : ",userxattr");
    MUST(mount("overlay", "merged", "overlay", 0, options));
    MUST(chdir("merged"));
    MUST(mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
    make_dev(as_root);
    MUST(mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL));
    mask_paths();
    loopback_up();
    MUST(sethostname("bare", 4));
    MUST(syscall(SYS_pivot_root, ".", "."));
    MUST(umount2(".", MNT_DETACH));
    MUST(chdir("/"));
    MUST(setsid());
    drop_capabilities();
    execvp(argv[3], argv + 3);
    die(argv[3]);
    return 127;
}

/* newuidmap PID 0 OWN 1 1 START COUNT: the caller's own id, then its first subordinate range. */
static pid_t spawn_map(const char *program, pid_t pid, unsigned own, char *start, char *count) {
    char pid_text[16], own_text[16];
    snprintf(pid_text, sizeof pid_text, "%d", pid);
    snprintf(own_text, sizeof own_text, "%u", own);
    char *const argv[] = {(char *)program, pid_text, "0", own_text, "1", "1", start, count, NULL};
    pid_t mapper;
    if ((errno = posix_spawnp(&mapper, program, NULL, NULL, argv, environ)) != 0) die(program);
    return mapper;
}

/* With BARE_RANGES="START COUNT" by the set-uid programs, else one line for the caller's own id. */
static void write_maps(pid_t pid) {
    char path[64], text[64], start[32], count[32];
    const char *ranges = getenv("BARE_RANGES");
    if (ranges && sscanf(ranges, "%31s %31s", start, count) == 2) {
        pid_t users = spawn_map("newuidmap", pid, getuid(), start, count);
        pid_t groups = spawn_map("newgidmap", pid, getgid(), start, count);
        int user_status, group_status;
        MUST(waitpid(users, &user_status, 0));
        MUST(waitpid(groups, &group_status, 0));
        if (user_status != 0 || group_status != 0) { errno = EPERM; die("newuidmap"); }
        return;
    }
    snprintf(path, sizeof path, "/proc/%d/setgroups", pid);
    put(path, "deny");
    snprintf(path, sizeof path, "/proc/%d/uid_map", pid);
    snprintf(text, sizeof text, "0 %d 1", getuid());
    put(path, text);
    snprintf(path, sizeof path, "/proc/%d/gid_map", pid);
    snprintf(text, sizeof text, "0 %d 1", getgid());
    put(path, text);
}

int main(int argc, char **argv) {
    if (argc < 4) { fputs("usage: bare ROOTFS SCRATCH PROGRAM [ARG...]\n", stderr); return 125; }
    int as_root = geteuid() == 0, go[2], status;
    char dir[4096];
    snprintf(dir, sizeof dir, "%s/%d", argv[2], getpid());
    MUST(mkdir(dir, 0700));
    MUST(chdir(dir));
    MUST(mkdir("upper", 0755));
    MUST(mkdir("work", 0755));
    MUST(mkdir("merged", 0755));
    MUST(pipe2(go, O_CLOEXEC));
    unsigned long flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | SIGCHLD;
    if (!as_root) flags |= CLONE_NEWUSER;
    pid_t pid = (pid_t)syscall(SYS_clone, flags, NULL, NULL, NULL, NULL);
    if (pid < 0) die("clone");
    if (pid == 0) return child(argv, as_root, go[0]);
    if (as_root) make_cgroups(pid); else write_maps(pid);
    MUST(write(go[1], "x", 1));
    MUST(waitpid(pid, &status, 0));
    for (int i = 0; i < n_cgroups; i++) rmdir(cgroups[i]);
    rmdir("work/work");
    rmdir("upper"); rmdir("work"); rmdir("merged");
    MUST(chdir("/"));
    rmdir(dir);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
