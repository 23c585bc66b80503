// What a dyno's launch costs at least: the same walls, made by the plainest program there is.
//
//   bare INSIDE APP BASE FILTER GROUP IPV6 [EMPTY]    INSIDE: the payload; FILTER: a compiled system call filter;
//                                                     GROUP: a prefix for names of control groups and links;
//                                                     IPV6: yes or no; EMPTY: a file with an empty ext4, of which each
//                                                     dyno gets a copy as its writable layer instead of memory
//
// Reads lines and answers each with one of JSON, as `bench launch` does: `run` → {"start", "stamp", "ended"} and
// `loop N` → {"seconds"}. One resident process that is told nothing, checks nothing it does not have to, stores nothing
// and survives nothing. Like hokku it makes network, user namespace and writable layer of the next launch after the last
// one. A step that fails ends it with the step's name. Built with: cc -O2 -static.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/if_link.h>
#include <linux/loop.h>
#include <linux/mount.h>
#include <linux/rtnetlink.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define INTO_CGROUP 0x200000000ULL
#define FIRST_ID 1700000000
#define LIMIT "1073741824"

static const char *payload, *app, *base, *prefix, *empty_image;
static struct sock_fprog filter;
static int users = -1, network = -1, layer = -1, serial = 0, ipv6;

static void need(long result, const char *step) {
  if (result < 0) {
    fprintf(stderr, "bare: %s: %s\n", step, strerror(errno));
    _exit(1);
  }
}

static int64_t now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static void put(int at, const char *path, const char *value) {
  int fd = openat(at, path, O_WRONLY | O_CLOEXEC);
  need(fd, path);
  need(write(fd, value, strlen(value)), path);
  close(fd);
}

// ---- namespaces ahead ----

struct request {
  struct nlmsghdr head;
  union { struct ifinfomsg link; struct ifaddrmsg address; struct rtmsg route; };
  char room[512];
};

static struct rtattr *add(struct request *r, int type, const void *data, int length) {
  struct rtattr *attribute = (void *)r + NLMSG_ALIGN(r->head.nlmsg_len);
  attribute->rta_type = type;
  attribute->rta_len = RTA_LENGTH(length);
  if (length) memcpy(RTA_DATA(attribute), data, length);
  r->head.nlmsg_len = NLMSG_ALIGN(r->head.nlmsg_len) + RTA_ALIGN(attribute->rta_len);
  return attribute;
}

static void end(struct request *r, struct rtattr *attribute) {
  attribute->rta_len = (void *)r + r->head.nlmsg_len - (void *)attribute;
}

static void ask(int socket, struct request *r, int type, int flags, const char *step) {
  r->head.nlmsg_type = type;
  r->head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
  need(send(socket, r, r->head.nlmsg_len, 0), step);
  struct { struct nlmsghdr head; struct nlmsgerr error; char room[512]; } answer;
  need(recv(socket, &answer, sizeof answer, 0), step);
  errno = -answer.error.error;
  need(answer.error.error, step);
}

static void up(int socket, int index) {
  struct request r = {.head.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg))};
  r.link.ifi_index = index, r.link.ifi_flags = r.link.ifi_change = IFF_UP;
  ask(socket, &r, RTM_NEWLINK, 0, "link up");
}

struct ip { int family, length; unsigned char bytes[16]; };

// One of ours by each family: the gateway, or the dyno of a serial number.
static struct ip ours(int family, int number) {
  uint32_t v4 = htonl(0x0aee0001 + number);
  struct ip ip = {family, family == AF_INET ? 4 : 16, {0xfd, 0xee}};
  if (family == AF_INET) memcpy(ip.bytes, &v4, 4);
  else memcpy(ip.bytes + 12, &v4, 4);
  return ip;
}

static void address(int socket, int index, struct ip ip) {
  struct request r = {.head.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg))};
  r.address.ifa_family = ip.family, r.address.ifa_prefixlen = ip.length * 8, r.address.ifa_index = index;
  if (ip.family == AF_INET6) r.address.ifa_flags = IFA_F_NODAD;
  add(&r, IFA_LOCAL, ip.bytes, ip.length);
  ask(socket, &r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, "address");
}

static void route(int socket, int index, struct ip *to, struct ip *via) {
  struct request r = {.head.nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg))};
  r.route.rtm_family = (to ? to : via)->family;
  r.route.rtm_table = RT_TABLE_MAIN, r.route.rtm_protocol = RTPROT_STATIC;
  r.route.rtm_type = RTN_UNICAST, r.route.rtm_scope = via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
  if (via) r.route.rtm_flags = RTNH_F_ONLINK;
  if (to) r.route.rtm_dst_len = to->length * 8, add(&r, RTA_DST, to->bytes, to->length);
  if (via) add(&r, RTA_GATEWAY, via->bytes, via->length);
  add(&r, RTA_OIF, &index, 4);
  ask(socket, &r, RTM_NEWROUTE, NLM_F_CREATE, "route");
}

static void make_network(void) {
  char name[IFNAMSIZ];
  snprintf(name, sizeof name, "%s%d", prefix, serial % 60000);
  int host = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  int outside = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  need(host, "own network"), need(outside, "netlink");
  need(unshare(CLONE_NEWNET), "unshare the network");
  network = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  int inside = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  need(network, "new network"), need(inside, "netlink");
  need(setns(host, CLONE_NEWNET), "back to the host's network");

  struct request r = {.head.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg))};
  struct ifinfomsg peer = {0};
  add(&r, IFLA_IFNAME, name, strlen(name) + 1);
  struct rtattr *info = add(&r, IFLA_LINKINFO, NULL, 0);
  add(&r, IFLA_INFO_KIND, "veth", 4);
  struct rtattr *data = add(&r, IFLA_INFO_DATA, NULL, 0);
  struct rtattr *other = add(&r, VETH_INFO_PEER, &peer, sizeof peer);
  add(&r, IFLA_IFNAME, "eth0", 5);
  add(&r, IFLA_NET_NS_FD, &network, 4);
  end(&r, other), end(&r, data), end(&r, info);
  ask(outside, &r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, "veth");
  int index = if_nametoindex(name);
  const int families[] = {AF_INET, AF_INET6};
  up(outside, index);
  for (int i = 0; i < 1 + ipv6; i++) {
    struct ip own = ours(families[i], 1 + serial % 60000);
    address(outside, index, ours(families[i], 0)), route(outside, index, &own, NULL);
  }
  // In a network without other links the veth comes right after the loopback, or after what the kernel puts there.
  need(setns(network, CLONE_NEWNET), "into the new network");
  int eth0 = if_nametoindex("eth0");
  need(setns(host, CLONE_NEWNET), "back to the host's network");
  up(inside, 1), up(inside, eth0);
  for (int i = 0; i < 1 + ipv6; i++) {
    struct ip gateway = ours(families[i], 0);
    address(inside, eth0, ours(families[i], 1 + serial % 60000));
    route(inside, eth0, &gateway, NULL), route(inside, eth0, NULL, &gateway);
  }
  close(host), close(inside), close(outside);
}

static void make_users(void) {
  int gate[2];
  need(pipe2(gate, O_CLOEXEC), "pipe");
  struct clone_args how = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
  pid_t child = syscall(SYS_clone3, &how, sizeof how);
  need(child, "user namespace");
  if (child == 0) {
    char byte;
    close(gate[1]);
    _exit(read(gate[0], &byte, 1) != 0);
  }
  char path[64], map[64];
  snprintf(map, sizeof map, "0 %d 65536\n", FIRST_ID);
  snprintf(path, sizeof path, "/proc/%d/uid_map", child), put(AT_FDCWD, path, map);
  snprintf(path, sizeof path, "/proc/%d/gid_map", child), put(AT_FDCWD, path, map);
  snprintf(path, sizeof path, "/proc/%d/ns/user", child);
  users = open(path, O_RDONLY | O_CLOEXEC);
  need(users, path);
  close(gate[0]), close(gate[1]);
  waitpid(child, NULL, 0);
}

// ---- control groups ----

static const char *roots[] = {"memory", "cpu", "pids", NULL};
static char groups[4][256];
static int tasks[3], group_count;

static void make_groups(void) {
  struct stat there;
  int hybrid = stat("/sys/fs/cgroup/memory", &there) == 0;
  group_count = 0;
  for (int i = 0; hybrid && roots[i]; i++) {
    char *dir = groups[group_count];
    snprintf(dir, 256, "/sys/fs/cgroup/%s/%s", roots[i], prefix);
    need(mkdir(dir, 0755), dir);
    int fd = open(dir, O_PATH | O_CLOEXEC);
    if (i == 0) put(fd, "memory.limit_in_bytes", LIMIT), put(fd, "memory.swappiness", "0");
    if (i == 1) put(fd, "cpu.shares", "1024");
    if (i == 2) put(fd, "pids.max", "256");
    tasks[group_count++] = openat(fd, "tasks", O_WRONLY | O_CLOEXEC);
    close(fd);
  }
  char *dir = groups[group_count++];
  snprintf(dir, 256, "/sys/fs/cgroup/%s%s", hybrid ? "unified/" : "", prefix);
  need(mkdir(dir, 0755), dir);
  if (!hybrid) {
    int fd = open(dir, O_PATH | O_CLOEXEC);
    put(fd, "memory.max", LIMIT), put(fd, "cpu.weight", "100"), put(fd, "pids.max", "256");
    close(fd);
  }
}

// ---- the root ----

static int make_mount(const char *kind, const char **options, unsigned attributes) {
  int context = syscall(SYS_fsopen, kind, FSOPEN_CLOEXEC);
  need(context, kind);
  for (; *options; options += 2) {
    int command = options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG;
    need(syscall(SYS_fsconfig, context, command, options[0], options[1], 0), options[0]);
  }
  need(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0), kind);
  int mount = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, attributes);
  need(mount, kind);
  close(context);
  return mount;
}

// A copy of the empty file system, in a file without a name behind a device.
static int make_image(void) {
  char dir[4096], device[32];
  snprintf(dir, sizeof dir, "%s", empty_image);
  *strrchr(dir, '/') = 0;
  int from = open(empty_image, O_RDONLY | O_CLOEXEC), to = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  struct stat what;
  need(from, empty_image), need(to, dir);
  need(fstat(from, &what) | ftruncate(to, what.st_size), "image");
  for (off_t end = 0, at; (at = lseek(from, end, SEEK_DATA)) >= 0;) {
    end = lseek(from, at, SEEK_HOLE);
    off_t target = at;
    while (at < end) need(copy_file_range(from, &at, to, &target, end - at, 0) - 1, "copy");
  }
  int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC), loop;
  struct loop_config wanted = {.fd = to, .block_size = 4096, .info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO};
  for (;;) {
    snprintf(device, sizeof device, "/dev/loop%d", ioctl(control, LOOP_CTL_GET_FREE));
    loop = open(device, O_RDWR | O_CLOEXEC);
    need(loop, device);
    if (ioctl(loop, LOOP_CONFIGURE, &wanted) == 0) break;
    need(errno == EBUSY ? 0 : -1, "LOOP_CONFIGURE");
    close(loop);
  }
  int mount = make_mount("ext4", (const char *[]){"source", device, "noinit_itable", NULL, "nobarrier", NULL, NULL},
                         MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
  close(from), close(to), close(control), close(loop);
  return mount;
}

static int copy_mount(int at, const char *path, uint64_t attributes, int mapped) {
  int flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (*path ? 0 : AT_EMPTY_PATH);
  int mount = syscall(SYS_open_tree, at, path, flags);
  need(mount, path);
  struct mount_attr set = {.attr_set = attributes | (mapped ? MOUNT_ATTR_IDMAP : 0), .propagation = 1 << 18};
  if (mapped) set.userns_fd = users;
  need(syscall(SYS_mount_setattr, mount, "", AT_EMPTY_PATH, &set, sizeof set), "mount_setattr");
  return mount;
}

static void attach(int mount, int at, const char *path) {
  need(syscall(SYS_move_mount, mount, "", at, path, MOVE_MOUNT_F_EMPTY_PATH | (*path ? 0 : MOVE_MOUNT_T_EMPTY_PATH)), path);
  close(mount);
}

static void place(int mount, int root, const char *path) {
  if (mkdirat(root, path, 0755) < 0 && errno != EEXIST) need(-1, path);
  attach(mount, root, path);
}

#define SUID_DEV (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define OPTIONS(...) (const char *[]){__VA_ARGS__, NULL}

static int build(void) {
  char id[16];
  snprintf(id, sizeof id, "%d", FIRST_ID);
  int proc = make_mount("proc", OPTIONS("hidepid", "invisible"), SUID_DEV | MOUNT_ATTR_NOEXEC);
  int dev = make_mount("tmpfs", OPTIONS("uid", id, "gid", id, "mode", "755", "size", "65536"), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  static const struct { const char *name; int major, minor; } devices[] = {
    {"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
  mode_t usual = umask(0);
  for (unsigned i = 0; i < 6; i++) {
    need(mknodat(dev, devices[i].name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)), devices[i].name);
    need(fchownat(dev, devices[i].name, FIRST_ID, FIRST_ID, AT_SYMLINK_NOFOLLOW), devices[i].name);
  }
  umask(usual);
  need(symlinkat("/proc/self/fd", dev, "fd") | symlinkat("/proc/self/fd/0", dev, "stdin") |
       symlinkat("/proc/self/fd/1", dev, "stdout") | symlinkat("/proc/self/fd/2", dev, "stderr") |
       symlinkat("pts/ptmx", dev, "ptmx"), "links");
  int pts = make_mount("devpts", OPTIONS("newinstance", NULL, "ptmxmode", "0666", "mode", "0620", "gid", "1700000005"), MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
  int shm = make_mount("tmpfs", OPTIONS("uid", id, "gid", id, "mode", "1777", "size", "134217728"), SUID_DEV | MOUNT_ATTR_NOEXEC);
  int sys = make_mount("tmpfs", OPTIONS("uid", id, "gid", id, "mode", "755", "size", "65536"), SUID_DEV | MOUNT_ATTR_NOEXEC);
  int view[4];
  for (int i = 0; i < group_count - (group_count > 1); i++)
    view[i] = copy_mount(AT_FDCWD, groups[i], SUID_DEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, 0);
  int usr = copy_mount(AT_FDCWD, "/usr", SUID_DEV | MOUNT_ATTR_RDONLY, 1);
  int layers[] = {copy_mount(AT_FDCWD, app, SUID_DEV, 1), copy_mount(AT_FDCWD, base, SUID_DEV, 1)};

  int stage = open("/tmp", O_PATH | O_CLOEXEC);
  need(syscall(SYS_move_mount, layer, "", stage, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), "stage");
  need(fchdir(layer) | chdir("dyno"), "stage");
  setfsgid(FIRST_ID), setfsuid(FIRST_ID);
  need(mkdir("upper/etc", 0755) | mkdir("upper/tmp", 01777) | chmod("upper/tmp", 01777), "etc, tmp");
  for (const char **name = OPTIONS("upper/etc/hosts", "upper/etc/hostname", "upper/etc/resolv.conf"); *name; name++) {
    int fd = open(*name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    need(fd, *name);
    need(write(fd, "127.0.0.1 localhost\n", 20), *name);
    close(fd);
  }
  setfsuid(0), setfsgid(0);
  attach(layers[0], AT_FDCWD, "0"), attach(layers[1], AT_FDCWD, "1");
  int root = make_mount("overlay", OPTIONS("lowerdir", "0:1", "upperdir", "upper", "workdir", "work", "volatile", NULL, "redirect_dir", "on"), SUID_DEV);
  need(syscall(SYS_move_mount, root, "", AT_FDCWD, "root", MOVE_MOUNT_F_EMPTY_PATH), "root");
  setfsgid(FIRST_ID), setfsuid(FIRST_ID);
  place(proc, root, "proc"), place(dev, root, "dev"), place(pts, root, "dev/pts");
  place(shm, root, "dev/shm"), place(sys, root, "sys");
  need(mkdirat(root, "sys/fs", 0755), "sys/fs");
  need(mkdirat(root, "sys/fs/cgroup", 0755), "sys/fs/cgroup");
  for (int i = 0; i < group_count - (group_count > 1); i++) {
    char path[64] = "sys/fs/cgroup";
    if (group_count > 1) snprintf(path, sizeof path, "sys/fs/cgroup/%s", roots[i]);
    place(view[i], root, path);
  }
  place(usr, root, "usr");
  for (const char **path = OPTIONS("proc/bus", "proc/fs", "proc/irq", "proc/sys"); *path; path++) {
    int target = openat(root, *path, O_PATH | O_CLOEXEC);
    if (target < 0) continue;
    attach(copy_mount(target, "", SUID_DEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, 0), target, "");
    close(target);
  }
  int null = openat(root, "dev/null", O_PATH | O_CLOEXEC);
  int empty = make_mount("tmpfs", OPTIONS("size", "0", "nr_inodes", "1", "mode", "555"), SUID_DEV | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY);
  for (const char **path = OPTIONS("proc/acpi", "proc/asound", "proc/diskstats", "proc/partitions", "proc/interrupts", "proc/kcore", "proc/key-users", "proc/keys",
         "proc/kmsg", "proc/kpagecount", "proc/kpageflags", "proc/latency_stats", "proc/sched_debug", "proc/scsi",
         "proc/timer_list", "proc/timer_stats"); *path; path++) {
    int target = openat(root, *path, O_PATH | O_CLOEXEC);
    if (target < 0) continue;
    struct stat what;
    need(fstat(target, &what), *path);
    int cover = syscall(SYS_open_tree, S_ISDIR(what.st_mode) ? empty : null, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    need(cover, *path);
    attach(cover, target, "");
    close(target);
  }
  setfsuid(0), setfsgid(0);
  return root;
}

// The writable layer with its directories, attached nowhere.
static void make_layer(void) {
  layer = empty_image ? make_image() : make_mount("tmpfs", OPTIONS("size", "536870912", "mode", "755"), SUID_DEV);
  // Directly below the root ext4 would spread them.
  need(mkdirat(layer, "dyno", 0755), "dyno");
  int dyno = openat(layer, "dyno", O_PATH | O_CLOEXEC);
  for (const char **name = OPTIONS("upper", "work", "root", "0", "1"); *name; name++) need(mkdirat(dyno, *name, 0755), *name);
  need(fchownat(dyno, "upper", FIRST_ID, FIRST_ID, 0), "upper");
  close(dyno);
}

static void become(int id) {
  need(setgroups(0, NULL), "setgroups");
  need(setresgid(id, id, id), "setresgid");
  need(setresuid(id, id, id), "setresuid");
}

static void become_init(int out) {
  need(prctl(PR_SET_PDEATHSIG, SIGKILL), "pdeathsig");
  for (int i = 0; i < group_count - 1; i++) need(write(tasks[i], "0", 1), "tasks");
  need(unshare(CLONE_NEWCGROUP), "cgroup namespace");
  need(setns(network, CLONE_NEWNET), "network");
  need(sethostname("bare", 4), "hostname");
  umask(022);
  struct mount_attr private = {.propagation = 1 << 18};
  need(syscall(SYS_mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &private, sizeof private), "private");
  int root = build();
  need(fchdir(root), "root");
  need(syscall(SYS_pivot_root, ".", "."), "pivot_root");
  need(syscall(SYS_umount2, ".", 2), "umount");
  need(chdir("/"), "chdir");
  struct rlimit files = {10000, 10000}, core = {0, 0};
  need(setrlimit(RLIMIT_NOFILE, &files) | setrlimit(RLIMIT_CORE, &core), "rlimits");
  need(setns(users, CLONE_NEWUSER), "user namespace");
  become(0);
  for (int cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++);
  need(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp");
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[2] = {{0}};
  pid_t child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  need(child, "fork");
  if (child == 0) {
    need(setsid(), "setsid");
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    need(dup2(null, 0) | dup2(out, 1) | dup2(null, 2), "stdio");
    become(1000);
    need(chdir("/app"), "chdir");
    need(syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC), "close_range");
    need(syscall(SYS_capset, &header, none), "capset");
    need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges");
    char *argv[] = {(char *)payload, NULL}, *envp[] = {"HOME=/app", "PATH=/usr/local/bin:/usr/bin:/bin", NULL};
    execve(payload, argv, envp);
    need(-1, "exec");
  }
  prctl(PR_SET_DUMPABLE, 0);
  need(syscall(SYS_capset, &header, none), "capset");
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  syscall(SYS_close_range, 0, ~0U, 0);
  int status;
  while (wait(&status) != child);
  _exit(WEXITSTATUS(status));
}

struct times { int64_t start, stamp, ended; };

static struct times launch(void) {
  struct times times = {.start = now()};
  make_groups();
  int out[2];
  need(pipe2(out, O_CLOEXEC), "pipe");
  need(fchown(out[1], FIRST_ID + 1000, FIRST_ID + 1000), "pipe");
  int v2 = open(groups[group_count - 1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  need(v2, groups[group_count - 1]);
  struct clone_args how = {
    .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = v2};
  pid_t child = syscall(SYS_clone3, &how, sizeof how);
  need(child, "clone3");
  if (child == 0) {
    close(out[0]);
    become_init(out[1]);
  }
  close(out[1]), close(v2), close(network), close(users), close(layer);
  char text[64] = "";
  need(read(out[0], text, sizeof text - 1), "read");
  times.stamp = atoll(text);
  int status;
  need(waitpid(child, &status, 0), "wait");
  if (status) {
    fprintf(stderr, "bare: the payload ended with status %d\n", status);
    _exit(1);
  }
  close(out[0]);
  for (int i = 0; i < group_count; i++) {
    if (i < group_count - 1) close(tasks[i]);
    need(rmdir(groups[i]), groups[i]);
  }
  times.ended = now();
  return times;
}

static void make_ahead(void) {
  serial++;
  make_network(), make_users(), make_layer();
}

int main(int argc, char **argv) {
  static struct sock_filter instructions[4096];
  if (argc != 7 && argc != 8) return fprintf(stderr, "usage: bare INSIDE APP BASE FILTER GROUP IPV6 [EMPTY]\n"), 2;
  payload = argv[1], app = argv[2], base = argv[3], prefix = argv[5];
  ipv6 = strcmp(argv[6], "yes") == 0, empty_image = argv[7];
  int fd = open(argv[4], O_RDONLY | O_CLOEXEC);
  ssize_t length = read(fd, instructions, sizeof instructions);
  need(fd < 0 ? -1 : length, argv[4]);
  filter = (struct sock_fprog){length / sizeof *instructions, instructions};
  char line[64];
  make_ahead();
  while (fgets(line, sizeof line, stdin)) {
    int count;
    if (sscanf(line, "loop %d", &count) == 1) {
      int64_t start = now();
      for (int i = 0; i < count; i++) launch(), make_ahead();
      printf("{\"seconds\": %f}\n", (now() - start) / 1e9);
    } else {
      struct times times = launch();
      printf("{\"start\": %ld, \"stamp\": %ld, \"ended\": %ld}\n", times.start, times.stamp, times.ended);
      fflush(stdout);
      make_ahead();
    }
    fflush(stdout);
  }
  return 0;
}
