
/*
 * trim.c - gives back what a worker's allocators, ours and libc's, keep free.
 *
 * The core gives back what has been free for a while, but only as long as there
 * are requests; libc gives back only the end of its heap. So the timer looks at
 * both, twice within hakmem_trim. What was free at two looks, and was not
 * already free when memory was last given back, goes back if it is enough; what
 * is used now and then stays:
 *
 *     the worker is busy          nothing of ours
 *     it has little to do         1 MB and an eighth of what is in use
 *     nothing has changed         256 KB: it sleeps
 *     it shuts down               64 KB: it won't need it again
 *
 * What a trim leaves behind (holes among blocks in use) does not cause the next
 * one.
 */


#include <module/module.h>
#include <ngx_event.h>
#include <patch/patch.h>

#include <malloc.h>


#define NGX_HAKMEM_IDLE_MIN     (1024 * 1024)
#define NGX_HAKMEM_ASLEEP_MIN   (256 * 1024)
#define NGX_HAKMEM_EXITING_MIN  (64 * 1024)
#define NGX_HAKMEM_QUIET        2000          /* calls in a second */

/* glibc before 2.33: numbers of 32 bits, which wrap; musl has none */

#if !defined(__GLIBC__)
#define ngx_hakmem_mallinfo()   ((ngx_hakmem_mallinfo_t) { 0, 0 })
#define ngx_hakmem_wide_t       size_t
typedef struct {
    size_t               uordblks;
    size_t               fordblks;
} ngx_hakmem_mallinfo_t;
#elif __GLIBC_PREREQ(2, 33)
#define ngx_hakmem_mallinfo     mallinfo2
#define ngx_hakmem_wide_t       size_t
typedef struct mallinfo2        ngx_hakmem_mallinfo_t;
#else
#define ngx_hakmem_mallinfo     mallinfo
#define ngx_hakmem_wide_t       unsigned
typedef struct mallinfo         ngx_hakmem_mallinfo_t;
#endif


/* of one allocator */

typedef struct {
    uint64_t             calls;
    size_t               used;
    size_t               idle;
} ngx_hakmem_sample_t;


/* ... as seen by its looks */

typedef struct {
    ngx_hakmem_sample_t  last;
    size_t               low;           /* the least idle since the last trim */
} ngx_hakmem_seen_t;


static void ngx_hakmem_sample_own(ngx_hakmem_sample_t *sample);
static void ngx_hakmem_sample_libc(ngx_hakmem_sample_t *sample);
static ngx_uint_t ngx_hakmem_has_changed(ngx_hakmem_sample_t *one,
    ngx_hakmem_sample_t *two);
static ngx_uint_t ngx_hakmem_is_idle(ngx_hakmem_seen_t *seen,
    ngx_hakmem_sample_t *now, size_t least);
static void ngx_hakmem_give_back(ngx_uint_t own, ngx_uint_t libc);
static size_t ngx_hakmem_own(void);


static ngx_hakmem_seen_t  ngx_hakmem_own_seen;
static ngx_hakmem_seen_t  ngx_hakmem_libc_seen;
static ngx_msec_t         ngx_hakmem_looked;
static ngx_uint_t         ngx_hakmem_over;


ngx_uint_t
ngx_hakmem_trims(ngx_cycle_t *cycle)
{
    ngx_hakmem_conf_t  *hcf;

    if (cycle->modules == NULL || !ngx_hakmem_is_loaded(cycle)) {
        return 0;
    }

    hcf = ngx_hakmem_get_conf(cycle);

    return hcf->trim && (hcf->enable || ngx_hakmem_has_core());
}


/* what it has when it starts does not count as idle */

void
ngx_hakmem_trim_start(void)
{
    ngx_hakmem_sample_own(&ngx_hakmem_own_seen.last);
    ngx_hakmem_sample_libc(&ngx_hakmem_libc_seen.last);

    ngx_hakmem_own_seen.low = ngx_hakmem_own_seen.last.idle;
    ngx_hakmem_libc_seen.low = ngx_hakmem_libc_seen.last.idle;

    ngx_hakmem_looked = ngx_current_msec;
}


ngx_msec_t
ngx_hakmem_trim_interval(ngx_hakmem_conf_t *hcf)
{
    return hcf->trim * 2 / 5;
}


/* whether there should be another look, even if nothing happens until then */

ngx_uint_t
ngx_hakmem_trim_look(ngx_hakmem_conf_t *hcf)
{
    size_t               own_least, libc_least;
    ngx_msec_t           passed;
    ngx_uint_t           own, libc, changed, busy;
    ngx_hakmem_sample_t  ours, theirs;

    passed = ngx_current_msec - ngx_hakmem_looked;

    if (passed < ngx_hakmem_trim_interval(hcf)) {
        return 1;
    }

    ngx_hakmem_looked = ngx_current_msec;

    if (ngx_hakmem_worker.state == NGX_HAKMEM_MODULE) {
        hak_ngx_tick();
    }

    ngx_hakmem_sample_own(&ours);
    ngx_hakmem_sample_libc(&theirs);

    changed = ngx_hakmem_has_changed(&ours, &ngx_hakmem_own_seen.last)
              || ngx_hakmem_has_changed(&theirs, &ngx_hakmem_libc_seen.last);

    busy = ours.calls - ngx_hakmem_own_seen.last.calls
           > NGX_HAKMEM_QUIET * passed / 1000;

    if (ngx_exiting) {
        busy = 0;
        own_least = NGX_HAKMEM_EXITING_MIN;
        libc_least = NGX_HAKMEM_EXITING_MIN;

    } else if (!changed) {
        own_least = NGX_HAKMEM_ASLEEP_MIN;
        libc_least = NGX_HAKMEM_ASLEEP_MIN;

    } else {
        own_least = ngx_max(NGX_HAKMEM_IDLE_MIN, ours.used / 8);
        libc_least = ngx_max(NGX_HAKMEM_IDLE_MIN, theirs.used / 8);
    }

    own = ngx_hakmem_is_idle(&ngx_hakmem_own_seen, &ours, own_least);
    libc = ngx_hakmem_is_idle(&ngx_hakmem_libc_seen, &theirs, libc_least);

    ngx_hakmem_give_back(own && !busy, libc);

    return changed;
}


/*
 * Free memory: what the lanes hold besides blocks in use, and what they have
 * given up but is still resident.
 */

static void
ngx_hakmem_sample_own(ngx_hakmem_sample_t *sample)
{
    hak_stats_t  stats;

    ngx_memzero(sample, sizeof(ngx_hakmem_sample_t));

    if (!ngx_hakmem_has_core()) {
        return;
    }

    stats.size = sizeof(hak_stats_t);
    (void) ngx_hakmem_stats(&stats);

    sample->calls = stats.tiny_allocs + stats.tiny_frees
                    + stats.pool_allocs + stats.pool_frees
                    + stats.ace_allocs + stats.ace_frees
                    + stats.huge_allocs + stats.huge_frees;
    sample->used = stats.tiny_live_bytes + stats.pool_live_bytes
                   + stats.ace_live_bytes + stats.huge_live_bytes;

    sample->idle = ngx_hakmem_free_bytes(&stats)
                   + ngx_hakmem_due_bytes(&stats);
}


/*
 * on a preloaded library mallinfo2() includes its blocks, which were counted
 * already
 */

static void
ngx_hakmem_sample_libc(ngx_hakmem_sample_t *sample)
{
    ngx_hakmem_mallinfo_t  info;

    ngx_memzero(sample, sizeof(ngx_hakmem_sample_t));

    if (!ngx_hakmem_is_preloaded()) {
        info = ngx_hakmem_mallinfo();

        sample->used = (size_t) (ngx_hakmem_wide_t) info.uordblks;
        sample->idle = (size_t) (ngx_hakmem_wide_t) info.fordblks;
    }
}


static ngx_uint_t
ngx_hakmem_has_changed(ngx_hakmem_sample_t *one, ngx_hakmem_sample_t *two)
{
    return one->calls != two->calls || one->used != two->used
           || one->idle != two->idle;
}


/* whether enough is idle at two looks, and was not at the last trim */

static ngx_uint_t
ngx_hakmem_is_idle(ngx_hakmem_seen_t *seen, ngx_hakmem_sample_t *now,
    size_t least)
{
    size_t  both;

    both = ngx_min(now->idle, seen->last.idle);

    seen->last = *now;
    seen->low = ngx_min(seen->low, now->idle);

    return both > seen->low + least;
}


static void
ngx_hakmem_give_back(ngx_uint_t own, ngx_uint_t libc)
{
    size_t      bytes;
    ngx_uint_t  given;

    given = 0;

    if (own && ngx_hakmem_has_core()) {
        bytes = ngx_hakmem_core_trim();
        given = bytes != 0;
        ngx_hakmem_worker.trimmed += bytes;

        ngx_hakmem_sample_own(&ngx_hakmem_own_seen.last);
        ngx_hakmem_own_seen.low = ngx_hakmem_own_seen.last.idle;
    }

    /* a preloaded library has this name, too, and passes it on */

    if (libc || (own && ngx_hakmem_is_preloaded())) {
        given |= malloc_trim(0) != 0;

        ngx_hakmem_sample_libc(&ngx_hakmem_libc_seen.last);
        ngx_hakmem_libc_seen.low = ngx_hakmem_libc_seen.last.idle;
    }

    ngx_hakmem_worker.trims += given;
}


void
ngx_hakmem_trim_limit(ngx_hakmem_conf_t *hcf, ngx_log_t *log)
{
    size_t  before, after;

    before = ngx_hakmem_own();

    if (before <= hcf->limit) {
        if (before <= hcf->limit - hcf->limit / 16) {
            ngx_hakmem_over = 0;
        }

        return;
    }

    if (ngx_hakmem_over) {
        return;
    }

    ngx_hakmem_over = 1;
    ngx_hakmem_worker.limit_hits++;

    ngx_hakmem_give_back(1, 1);

    after = ngx_hakmem_own();

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "hakmem: the worker has %uz bytes, more than hakmem_limit "
                  "%uz; %uz after idle memory was given back",
                  before, hcf->limit, after);
}


/* the process's own resident memory, without what it has mapped of files */

static size_t
ngx_hakmem_own(void)
{
    size_t  all, shared;

    if (ngx_hakmem_resident(&all, &shared) != NGX_OK || shared > all) {
        return 0;
    }

    return all - shared;
}
