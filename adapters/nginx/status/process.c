
/*
 * process.c - what a process reports about itself, and whether another one
 * still exists.
 */


#include <status/status.h>
#include <lua/vm.h>
#include <patch/patch.h>


#define counter  1
#define gauge    0

ngx_hakmem_stat_t  ngx_hakmem_stat_table[] = {
#define NGX_HAKMEM_STAT(name, kind, value, help)  { #name, help, kind },
#include "stats.def"
};

#undef counter
#undef gauge


char  *ngx_hakmem_old_names[NGX_HAKMEM_STATS] = {
#define NGX_HAKMEM_RENAMED(name, old)  [NGX_HAKMEM_STAT_##name] = #old,
#include "stats.def"
};


void
ngx_hakmem_gather(ngx_atomic_uint_t *stats)
{
    size_t                      rss, shared;
    hak_stats_t                 core;
    hak_ngx_stats               own;
    hak_stats_t                *s = &core;
    hak_ngx_stats              *n = &own;
    hak_ngx_vm_stats            lua;
    hak_ngx_vm_stats           *l = &lua;
    const ngx_hakmem_worker_t  *w = &ngx_hakmem_worker;

    ngx_memzero(s, sizeof(hak_stats_t));
    ngx_memzero(n, sizeof(hak_ngx_stats));

    s->size = sizeof(hak_stats_t);

    (void) ngx_hakmem_stats(s);

    hak_ngx_get_stats(n);

    hak_ngx_vm_get_stats(l);

    if (ngx_hakmem_resident(&rss, &shared) != NGX_OK) {
        rss = 0;
    }

#define NGX_HAKMEM_STAT(name, kind, value, help)                            \
    stats[NGX_HAKMEM_STAT_##name] = value;
#include "stats.def"
}


/* the statistics of a running process need not be of one moment */

size_t
ngx_hakmem_free_bytes(hak_stats_t *stats)
{
    size_t  held, live;

    held = stats->tiny_held_bytes + stats->pool_held_bytes
           + stats->ace_held_bytes + stats->huge_held_bytes;
    live = stats->tiny_live_bytes + stats->pool_live_bytes
           + stats->ace_live_bytes + stats->huge_live_bytes;

    return held > live ? held - live : 0;
}


/* a lower bound: a lane's slabs need not be resident in full */

size_t
ngx_hakmem_due_bytes(hak_stats_t *stats)
{
    size_t  slabs;

    slabs = stats->tiny_held_bytes + stats->pool_held_bytes;

    return stats->resident_bytes > slabs ? stats->resident_bytes - slabs : 0;
}


ngx_int_t
ngx_hakmem_resident(size_t *all, size_t *shared)
{
    long      pages, files;
    char      buf[128];
    ssize_t   n;
    ngx_fd_t  fd;

    fd = open("/proc/self/statm", O_RDONLY|O_CLOEXEC);
    if (fd == NGX_INVALID_FILE) {
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, buf, sizeof(buf) - 1);

    (void) ngx_close_file(fd);

    if (n <= 0) {
        return NGX_ERROR;
    }

    buf[n] = '\0';

    if (sscanf(buf, "%*d %ld %ld", &pages, &files) != 2) {
        return NGX_ERROR;
    }

    *all = (size_t) pages * ngx_pagesize;
    *shared = (size_t) files * ngx_pagesize;

    return NGX_OK;
}


/*
 * A record whose worker did not end it is given back when the process no longer
 * exists. The pid may belong to another process by then, but not with the same
 * start time.
 */

ngx_uint_t
ngx_hakmem_alive(ngx_pid_t pid, ngx_uint_t started)
{
    ngx_uint_t  now;

    if (pid == ngx_pid) {
        return 1;
    }

    if (kill(pid, 0) == -1 && ngx_errno == NGX_ESRCH) {
        return 0;
    }

    now = ngx_hakmem_started(pid);

    return now == 0 || started == 0 || now == started;
}


/* in the system's ticks since boot; 0: unknown */

ngx_uint_t
ngx_hakmem_started(ngx_pid_t pid)
{
    u_char     *p, *last, buf[1024];
    ssize_t     n;
    ngx_fd_t    fd;
    ngx_int_t   ticks;
    ngx_uint_t  i;

    p = ngx_snprintf(buf, sizeof(buf) - 1, "/proc/%P/stat", pid);
    *p = '\0';

    fd = open((char *) buf, O_RDONLY|O_CLOEXEC);
    if (fd == NGX_INVALID_FILE) {
        return 0;
    }

    n = ngx_read_fd(fd, buf, sizeof(buf));

    (void) ngx_close_file(fd);

    if (n <= 0) {
        return 0;
    }

    /* field 22; the second is a name in parentheses, of any characters */

    last = buf + n;

    for (p = last - 1; p > buf && *p != ')'; p--) { /* void */ }

    for (i = 2; i < 22; i++) {
        p = ngx_strlchr(p, last, ' ');
        if (p == NULL) {
            return 0;
        }

        p++;
    }

    n = 0;

    while (p + n < last && p[n] >= '0' && p[n] <= '9') {
        n++;
    }

    ticks = ngx_atoi(p, n);

    return (ticks == NGX_ERROR) ? 0 : (ngx_uint_t) ticks;
}
