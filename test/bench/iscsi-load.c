/* iscsi-load: loads iSCSI LUNs through libiscsi and prints one line of figures.
 *
 *   iscsi-load [-m MODE] [-b BYTES] [-q DEPTH] [-s SESSIONS] [-t SECONDS] [-n IOS] [-r SEED] [-i INITIATOR] URL...
 *
 * URL   iscsi://[user%password@]host[:port]/target/lun; sessions take the URLs in turn
 * -m    rr rw  random read, write       sr sw  sequential read, write
 *       vf     random writes of a known pattern, and reads that check the newest one of their block
 * -b    bytes of one I/O, a multiple of the LUN's block    -q  I/Os in flight in each session
 * -s    sessions, a thread and a connection each           -n  end after so many I/Os of each session
 *
 * Sequential sessions share the LUN out among themselves, each its own part; verifying ones too, since the one who
 * checks has to know what was written last. A write run overwrites the LUN.
 *
 * The line: iops= MBps= errs= wrong= p50us= p99us= p999us= maxus= ios= secs= cpuus=
 *   MBps in 10^6 bytes; latencies from the call until its answer, with less than 2 % of rounding; cpuus is what the
 *   load itself took of a processor for each I/O.
 * Exit: 0, 1 no session, 2 usage, 3 an I/O failed or was answered late, 4 a wrong byte was read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

enum { STALL_MS = 10000, MAX_ERRORS = 100, SUB_BITS = 6, BUCKETS = (64 - SUB_BITS) << SUB_BITS };

static struct {
	int random, writing, verify, depth, sessions;
	uint32_t block;
	double seconds;
	uint64_t ios, seed;
	const char *initiator;
} opt = {.random = 1, .depth = 1, .sessions = 1, .block = 4096, .seconds = 3, .ios = UINT64_MAX, .seed = 1,
	 .initiator = "iqn.2026-11.org.ripstop.bench:load"};

static pthread_barrier_t connected;
static int unconnected; /* sessions that could not be made; nobody starts when there is one */

struct session;

/* One I/O in flight; it owns the units u of its session with u % depth == number. */
struct slot {
	struct session *session;
	unsigned char *buffer;
	struct scsi_iovec vector;
	uint64_t unit;
	int writing;
	int64_t begun;
};

struct session {
	int number, lun, inflight, stopping;
	const char *url;
	struct iscsi_context *iscsi;
	struct slot *slots;
	uint32_t lun_block;
	uint64_t first, units, next; /* units of opt.block bytes; the part of the LUN that it uses */
	uint32_t *generation;        /* of each unit: how often it was written, 0 is unknown content */
	uint64_t random, issued, done, errors, wrong;
	double took;
	uint64_t *histogram, slowest;
};

static int64_t now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static uint64_t mix(uint64_t *state) { /* splitmix64 */
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Buckets are 2^SUB_BITS linear parts of each power of two. */
static unsigned bucket(uint64_t ns) {
	if (ns < 1u << SUB_BITS) return ns;
	unsigned shift = 63 - SUB_BITS - __builtin_clzll(ns);
	return ((shift + 1) << SUB_BITS) + (ns >> shift) - (1u << SUB_BITS);
}

static uint64_t bucket_value(unsigned b) {
	unsigned shift = b >> SUB_BITS;
	return shift ? ((uint64_t)(1u << SUB_BITS) + (b & ((1u << SUB_BITS) - 1))) << (shift - 1) : b;
}

/* pattern fills a unit with what its content is after its n-th write. */
static void pattern(unsigned char *p, uint64_t unit, uint32_t generation) {
	uint64_t state = opt.seed ^ unit << 32 ^ generation;
	for (uint32_t i = 0; i + 8 <= opt.block; i += 8) {
		uint64_t word = mix(&state);
		memcpy(p + i, &word, 8);
	}
}

static void check(struct slot *io) {
	struct session *s = io->session;
	unsigned char *want = malloc(opt.block);
	uint32_t generation = s->generation[io->unit - s->first];
	pattern(want, io->unit, generation);
	if (memcmp(want, io->buffer, opt.block)) {
		uint32_t at = 0;
		while (want[at] == io->buffer[at]) at++;
		if (s->wrong++ < 3)
			fprintf(stderr, "session %d: wrong byte at %llu after write %u of its unit: %02x, not %02x\n", s->number,
				(unsigned long long)(io->unit * opt.block + at), generation, io->buffer[at], want[at]);
	}
	free(want);
}

static void choose(struct slot *io) {
	struct session *s = io->session;
	if (!opt.random) {
		io->unit = s->first + s->next++ % s->units;
	} else if (!opt.verify) {
		io->unit = s->first + mix(&s->random) % s->units;
	} else {
		uint64_t mine = s->units / opt.depth;
		io->unit = s->first + mix(&s->random) % mine * opt.depth + (io - s->slots);
		io->writing = s->generation[io->unit - s->first] == 0 || mix(&s->random) & 1;
	}
}

static void fill(struct slot *io) {
	struct session *s = io->session;
	if (opt.verify)
		pattern(io->buffer, io->unit, ++s->generation[io->unit - s->first]);
	else /* one word that changes, so that no two blocks are the same */
		memcpy(io->buffer, &s->random, sizeof s->random);
}

static void issue(struct slot *io);

static void answered(struct iscsi_context *iscsi, int status, void *data, void *private_data) {
	struct slot *io = private_data;
	struct session *s = io->session;
	s->inflight--;
	if (status == SCSI_STATUS_GOOD) {
		uint64_t took = now() - io->begun;
		s->done++;
		s->histogram[bucket(took)]++;
		if (took > s->slowest) s->slowest = took;
		if (opt.verify && !io->writing) check(io);
	} else {
		if (s->errors++ < 3) fprintf(stderr, "session %d: status %d: %s\n", s->number, status, iscsi_get_error(iscsi));
		if (opt.verify && io->writing) s->stopping = 1; /* what the unit holds now is not known */
		if (s->errors > MAX_ERRORS) s->stopping = 1;
	}
	scsi_free_scsi_task(data);
	if (!s->stopping && s->issued < opt.ios) issue(io);
}

static void issue(struct slot *io) {
	struct session *s = io->session;
	struct scsi_task *task;
	choose(io);
	uint64_t lba = io->unit * (opt.block / s->lun_block);
	if (io->writing) fill(io);
	io->begun = now();
	if (io->writing)
		task = iscsi_write16_iov_task(s->iscsi, s->lun, lba, NULL, opt.block, s->lun_block, 0, 0, 0, 0, 0, answered, io, &io->vector, 1);
	else
		task = iscsi_read16_iov_task(s->iscsi, s->lun, lba, opt.block, s->lun_block, 0, 0, 0, 0, 0, answered, io, &io->vector, 1);
	if (!task) {
		fprintf(stderr, "session %d: begin I/O: %s\n", s->number, iscsi_get_error(s->iscsi));
		s->errors++;
		s->stopping = 1;
		return;
	}
	s->issued++;
	s->inflight++;
}

static int capacity(struct session *s) {
	struct scsi_task *task = iscsi_readcapacity16_sync(s->iscsi, s->lun);
	struct scsi_readcapacity16 *c = task && task->status == SCSI_STATUS_GOOD ? scsi_datain_unmarshall(task) : NULL;
	if (!c) {
		fprintf(stderr, "session %d: READ CAPACITY(16): %s\n", s->number, iscsi_get_error(s->iscsi));
		return -1;
	}
	s->lun_block = c->block_length;
	s->first = 0;
	s->units = (c->returned_lba + 1) * c->block_length / opt.block;
	scsi_free_scsi_task(task);
	if (opt.verify || !opt.random) {
		s->units /= opt.sessions;
		s->first = s->units * s->number;
	}
	if (opt.block % s->lun_block || s->units < (uint64_t)opt.depth) {
		fprintf(stderr, "session %d: LUN of %u-byte blocks cannot take I/Os of %u bytes %d deep\n", s->number, s->lun_block, opt.block, opt.depth);
		return -1;
	}
	return 0;
}

static int log_in(struct session *s) {
	s->iscsi = iscsi_create_context(opt.initiator);
	struct iscsi_url *url = s->iscsi ? iscsi_parse_full_url(s->iscsi, s->url) : NULL;
	if (!url) {
		fprintf(stderr, "%s: %s\n", s->url, s->iscsi ? iscsi_get_error(s->iscsi) : "no memory");
		return -1;
	}
	s->lun = url->lun;
	iscsi_set_session_type(s->iscsi, ISCSI_SESSION_NORMAL);
	iscsi_set_header_digest(s->iscsi, ISCSI_HEADER_DIGEST_NONE);
	iscsi_set_isid_random(s->iscsi, getpid(), s->number);
	iscsi_set_targetname(s->iscsi, url->target);
	if (url->user[0]) iscsi_set_initiator_username_pwd(s->iscsi, url->user, url->passwd);
	iscsi_set_noautoreconnect(s->iscsi, 1);
	int failed = iscsi_full_connect_sync(s->iscsi, url->portal, s->lun);
	if (failed) fprintf(stderr, "session %d: log in: %s\n", s->number, iscsi_get_error(s->iscsi));
	iscsi_destroy_url(url);
	return failed ? -1 : capacity(s);
}

static void prepare(struct session *s) {
	s->random = opt.seed * 1000003 + s->number;
	s->histogram = calloc(BUCKETS, sizeof *s->histogram);
	s->slots = calloc(opt.depth, sizeof *s->slots);
	if (opt.verify) s->generation = calloc(s->units, sizeof *s->generation);
	for (int i = 0; i < opt.depth; i++) {
		struct slot *io = &s->slots[i];
		io->session = s;
		io->writing = opt.writing;
		io->buffer = aligned_alloc(4096, (opt.block + 4095) / 4096 * 4096);
		io->vector = (struct scsi_iovec){io->buffer, opt.block};
		pattern(io->buffer, i, s->number);
	}
}

/* run keeps depth I/Os in flight until the time is over, and then waits for the last. */
static void run(struct session *s) {
	int64_t begun = now(), until = begun + opt.seconds * 1e9;
	for (int i = 0; i < opt.depth && s->issued < opt.ios; i++) issue(&s->slots[i]);
	while (s->inflight) {
		struct pollfd p = {iscsi_get_fd(s->iscsi), iscsi_which_events(s->iscsi), 0};
		int n = poll(&p, 1, STALL_MS);
		if (n < 0 && errno == EINTR) continue;
		if (n <= 0 || iscsi_service(s->iscsi, p.revents) < 0) {
			fprintf(stderr, "session %d: %s\n", s->number, n == 0 ? "no answer in 10 s" : iscsi_get_error(s->iscsi));
			s->errors++;
			break;
		}
		if (now() > until) s->stopping = 1;
	}
	s->took = (now() - begun) * 1e-9;
}

static void *session(void *argument) {
	struct session *s = argument;
	if (log_in(s)) __atomic_fetch_add(&unconnected, 1, __ATOMIC_SEQ_CST);
	else prepare(s);
	pthread_barrier_wait(&connected);
	if (unconnected) return NULL;
	run(s);
	if (!s->errors) iscsi_logout_sync(s->iscsi);
	return NULL;
}

static double quantile(const uint64_t *histogram, uint64_t total, double q) {
	uint64_t seen = 0, rank = total * q;
	for (unsigned b = 0; b < BUCKETS; b++)
		if ((seen += histogram[b]) > rank) return bucket_value(b) * 1e-3;
	return 0;
}

static int report(struct session *all) {
	static uint64_t histogram[BUCKETS];
	uint64_t done = 0, errors = 0, wrong = 0, slowest = 0;
	double iops = 0, took = 0;
	for (struct session *s = all; s < all + opt.sessions; s++) {
		done += s->done;
		errors += s->errors;
		wrong += s->wrong;
		iops += s->done / s->took;
		if (s->took > took) took = s->took;
		if (s->slowest > slowest) slowest = s->slowest;
		for (unsigned b = 0; b < BUCKETS; b++) histogram[b] += s->histogram[b];
	}
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	double cpu = (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
	printf("iops=%.0f MBps=%.1f errs=%llu wrong=%llu p50us=%.1f p99us=%.1f p999us=%.1f maxus=%.1f ios=%llu secs=%.3f cpuus=%.2f\n",
	       iops, iops * opt.block / 1e6, (unsigned long long)errors, (unsigned long long)wrong, quantile(histogram, done, .5),
	       quantile(histogram, done, .99), quantile(histogram, done, .999), slowest * 1e-3, (unsigned long long)done, took,
	       done ? cpu / done : 0);
	return wrong ? 4 : errors ? 3 : 0;
}

static int usage(void) {
	fprintf(stderr, "usage: iscsi-load [-m rr|rw|sr|sw|vf] [-b BYTES] [-q DEPTH] [-s SESSIONS] [-t SECONDS] [-n IOS] [-r SEED] [-i INITIATOR] URL...\n");
	return 2;
}

static int mode(const char *m) {
	static const char *const modes[] = {"rr", "rw", "sr", "sw", "vf"};
	for (int i = 0; i < 5; i++) {
		if (strcmp(m, modes[i])) continue;
		opt.random = i != 2 && i != 3;
		opt.writing = i == 1 || i == 3;
		opt.verify = i == 4;
		return 0;
	}
	return -1;
}

int main(int argc, char **argv) {
	for (int c; (c = getopt(argc, argv, "m:b:q:s:t:n:r:i:")) != -1;) {
		switch (c) {
		case 'm': if (mode(optarg)) return usage(); break;
		case 'b': opt.block = strtoul(optarg, NULL, 10); break;
		case 'q': opt.depth = atoi(optarg); break;
		case 's': opt.sessions = atoi(optarg); break;
		case 't': opt.seconds = atof(optarg); break;
		case 'n': opt.ios = strtoull(optarg, NULL, 10); break;
		case 'r': opt.seed = strtoull(optarg, NULL, 10); break;
		case 'i': opt.initiator = optarg; break;
		default: return usage();
		}
	}
	if (optind == argc || opt.block < 512 || opt.block % 512 || opt.depth < 1 || opt.sessions < 1 || opt.seconds <= 0) return usage();

	struct session *all = calloc(opt.sessions, sizeof *all);
	pthread_t *threads = calloc(opt.sessions, sizeof *threads);
	pthread_barrier_init(&connected, NULL, opt.sessions);
	for (int i = 0; i < opt.sessions; i++) {
		all[i].number = i;
		all[i].url = argv[optind + i % (argc - optind)];
		if (pthread_create(&threads[i], NULL, session, &all[i])) {
			perror("create thread");
			return 1;
		}
	}
	for (int i = 0; i < opt.sessions; i++) pthread_join(threads[i], NULL);
	return unconnected ? 1 : report(all);
}
