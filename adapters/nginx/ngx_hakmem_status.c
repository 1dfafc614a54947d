
/*
 * ngx_hakmem_status.c - the workers' figures in shared memory: who writes
 * them, who reads them, and what becomes of those of the dead.
 */


#include <ngx_hakmem_status.h>
#include <hak_ngx.h>
#include <hakmem.h>


static ngx_int_t ngx_hakmem_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_uint_t ngx_hakmem_slot_find(ngx_hakmem_zone_t *zone);
static void ngx_hakmem_gather(ngx_atomic_uint_t *figures);
static ngx_uint_t ngx_hakmem_rss(void);
static ngx_uint_t ngx_hakmem_alive(ngx_pid_t pid, ngx_uint_t started);
static ngx_uint_t ngx_hakmem_started(ngx_pid_t pid);
static void ngx_hakmem_fold(ngx_hakmem_zone_t *zone);
static ngx_int_t ngx_hakmem_snapshot_slots(ngx_hakmem_snapshot_t *ss,
    ngx_hakmem_zone_t *zone);
static void ngx_hakmem_read_slot(ngx_hakmem_row_t *row,
    ngx_hakmem_slot_t *slot);
static ngx_int_t ngx_hakmem_snapshot_sums(ngx_hakmem_snapshot_t *ss);
static void ngx_hakmem_add_row(ngx_hakmem_row_t *sum, ngx_hakmem_row_t *row,
    ngx_uint_t gone);
static int ngx_libc_cdecl ngx_hakmem_cmp_rows(const void *one,
    const void *two);


#define counter  1
#define gauge    0

ngx_hakmem_figure_t  ngx_hakmem_figures[] = {
#define NGX_HAKMEM_FIGURE(name, kind, value, help)  { #name, help, kind },
#include "ngx_hakmem_figures.def"
#undef NGX_HAKMEM_FIGURE
};

#undef counter
#undef gauge


/* this worker's, and its counters at the start: those of the master */

static ngx_hakmem_slot_t  *ngx_hakmem_slot;
static ngx_hakmem_zone_t  *ngx_hakmem_slot_zone;
static ngx_atomic_uint_t   ngx_hakmem_base[NGX_HAKMEM_FIGURES];


ngx_shm_zone_t *
ngx_hakmem_zone_add(ngx_conf_t *cf, void *tag)
{
    size_t           size;
    ngx_str_t        name = ngx_string("hakmem_status");
    ngx_shm_zone_t  *shm_zone;

    /* the slab allocator takes a part of its own for every page */

    size = ngx_align(sizeof(ngx_hakmem_zone_t), ngx_pagesize);
    size += size / 64 + 8 * ngx_pagesize;

    shm_zone = ngx_shared_memory_add(cf, &name, ngx_align(size, ngx_pagesize),
                                     tag);
    if (shm_zone == NULL) {
        return NULL;
    }

    shm_zone->init = ngx_hakmem_zone_init;

    return shm_zone;
}


static ngx_int_t
ngx_hakmem_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t    *shpool;
    ngx_hakmem_zone_t  *zone;

    if (data) {
        shm_zone->data = data;
        return NGX_OK;
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shm_zone->shm.exists) {
        shm_zone->data = shpool->data;
        return NGX_OK;
    }

    zone = ngx_slab_alloc(shpool, sizeof(ngx_hakmem_zone_t));
    if (zone == NULL) {
        return NGX_ERROR;
    }

    /* slots are cleared when they are taken: most never become resident */

    ngx_memzero(zone, offsetof(ngx_hakmem_zone_t, slots));

    shpool->data = zone;
    shm_zone->data = zone;

    return NGX_OK;
}


/*
 * A process without a master comes again with each configuration that it reads,
 * which may have another zone or none.
 */

void
ngx_hakmem_slot_take(ngx_shm_zone_t *shm_zone, ngx_uint_t generation,
    ngx_log_t *log)
{
    ngx_uint_t          i;
    ngx_slab_pool_t    *shpool;
    ngx_hakmem_slot_t  *slot;
    ngx_hakmem_zone_t  *zone;

    if (ngx_hakmem_slot) {

        if (shm_zone && shm_zone->data == ngx_hakmem_slot_zone) {
            ngx_hakmem_slot->generation = generation;
            return;
        }

        ngx_hakmem_slot_end();
    }

    if (shm_zone == NULL) {
        return;
    }

    zone = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    ngx_hakmem_fold(zone);

    i = ngx_hakmem_slot_find(zone);

    if (i == NGX_HAKMEM_SLOTS) {
        ngx_shmtx_unlock(&shpool->mutex);

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "hakmem_status has no slot left for this worker, its "
                      "figures will be missing: all %d are in use",
                      NGX_HAKMEM_SLOTS);
        return;
    }

    slot = &zone->slots[i];

    ngx_memzero(slot, sizeof(ngx_hakmem_slot_t));

    slot->pid = ngx_pid;
    slot->started = ngx_hakmem_started(ngx_pid);
    slot->worker = ngx_worker;
    slot->generation = generation;
    slot->updated = ngx_current_msec;

    if (i >= zone->top) {
        zone->top = i + 1;
    }

    ngx_memory_barrier();

    zone->use[i]++;

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_hakmem_slot = slot;
    ngx_hakmem_slot_zone = zone;

    /* what a preloaded library counted in the master is not this worker's */

    ngx_hakmem_gather(ngx_hakmem_base);
}


static ngx_uint_t
ngx_hakmem_slot_find(ngx_hakmem_zone_t *zone)
{
    ngx_uint_t          i;
    ngx_hakmem_gone_t  *gone;

    gone = &zone->gone[zone->folds & 1];

    for (i = 0; i < NGX_HAKMEM_SLOTS; i++) {
        if (zone->use[i] == gone->counted[i]) {
            break;
        }
    }

    return i;
}


void
ngx_hakmem_slot_publish(void)
{
    u_char              ch;
    ngx_uint_t          i;
    ngx_atomic_uint_t   figures[NGX_HAKMEM_FIGURES];
    ngx_hakmem_slot_t  *slot;

    slot = ngx_hakmem_slot;

    if (slot == NULL) {
        return;
    }

    ngx_hakmem_gather(figures);

    for (i = 0; i < NGX_HAKMEM_FIGURES; i++) {

        if (ngx_hakmem_figures[i].counter) {
            figures[i] -= ngx_hakmem_base[i];
        }

        slot->figures[i] = figures[i];
    }

    if (slot->state != (ngx_atomic_uint_t) ngx_hakmem_worker.state + 1) {

        /* no byte of it shall need to be escaped in JSON and elsewhere */

        for (i = 0; i < sizeof(slot->why) - 1; i++) {

            ch = (u_char) ngx_hakmem_worker.why[i];

            if (ch == '\0') {
                break;
            }

            if (ch == '"' || ch == '\\') {
                ch = '\'';
            }

            slot->why[i] = (ch >= 0x20 && ch < 0x7f) ? ch : '?';
        }

        slot->why[i] = '\0';

        ngx_memory_barrier();

        slot->state = ngx_hakmem_worker.state + 1;
    }

    slot->updated = ngx_current_msec;
}


void
ngx_hakmem_slot_end(void)
{
    if (ngx_hakmem_slot == NULL) {
        return;
    }

    ngx_hakmem_slot_publish();

    ngx_memory_barrier();

    ngx_hakmem_slot->ended = 1;
    ngx_hakmem_slot = NULL;
}


static void
ngx_hakmem_gather(ngx_atomic_uint_t *figures)
{
    ngx_uint_t                  rss;
    hak_stats_t                 stats;
    hak_ngx_figures             own;
    hak_stats_t                *s = &stats;
    hak_ngx_figures            *n = &own;
    const ngx_hakmem_worker_t  *w = &ngx_hakmem_worker;

    ngx_memzero(s, sizeof(hak_stats_t));
    ngx_memzero(n, sizeof(hak_ngx_figures));

    s->size = sizeof(hak_stats_t);

    (void) ngx_hakmem_stats(s);

    hak_ngx_get_figures(n);

    rss = ngx_hakmem_rss();

#define NGX_HAKMEM_FIGURE(name, kind, value, help)                            \
    figures[NGX_HAKMEM_FIGURE_##name] = value;
#include "ngx_hakmem_figures.def"
#undef NGX_HAKMEM_FIGURE
}


static ngx_uint_t
ngx_hakmem_rss(void)
{
    u_char     *p, buf[128];
    ssize_t     n;
    ngx_fd_t    fd;
    ngx_int_t   pages;

    fd = open("/proc/self/statm", O_RDONLY|O_CLOEXEC);
    if (fd == NGX_INVALID_FILE) {
        return 0;
    }

    n = ngx_read_fd(fd, buf, sizeof(buf) - 1);

    (void) ngx_close_file(fd);

    if (n <= 0) {
        return 0;
    }

    buf[n] = '\0';

    /* the second number */

    p = (u_char *) ngx_strchr(buf, ' ');
    if (p == NULL) {
        return 0;
    }

    n = strspn((char *) ++p, "0123456789");

    pages = ngx_atoi(p, n);

    return (pages == NGX_ERROR) ? 0 : (ngx_uint_t) pages * ngx_pagesize;
}


/*
 * A slot whose worker did not end it is given back when the process is no
 * more. A pid may be another's by then, but not with the same time of start.
 */

static ngx_uint_t
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


/* in the system's ticks since it booted, 0 if that can't be told */

static ngx_uint_t
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


/* under the zone's mutex */

static void
ngx_hakmem_fold(ngx_hakmem_zone_t *zone)
{
    ngx_uint_t          i, k, n;
    ngx_hakmem_gone_t  *gone, *next;
    ngx_hakmem_slot_t  *slot;

    gone = &zone->gone[zone->folds & 1];
    next = &zone->gone[(zone->folds + 1) & 1];

    n = 0;

    for (i = 0; i < zone->top; i++) {

        slot = &zone->slots[i];

        if (zone->use[i] == gone->counted[i]
            || (!slot->ended && ngx_hakmem_alive(slot->pid, slot->started)))
        {
            continue;
        }

        if (n++ == 0) {
            *next = *gone;
        }

        next->workers++;

        for (k = 0; k < NGX_HAKMEM_FIGURES; k++) {
            if (ngx_hakmem_figures[k].counter) {
                next->figures[k] += slot->figures[k];
            }
        }

        next->counted[i] = zone->use[i];
    }

    if (n) {
        ngx_memory_barrier();

        zone->folds++;

        ngx_memory_barrier();
    }
}


ngx_int_t
ngx_hakmem_snapshot(ngx_hakmem_snapshot_t *ss, ngx_shm_zone_t *shm_zone,
    ngx_pool_t *pool)
{
    ngx_int_t           rc;
    ngx_uint_t          n;
    ngx_slab_pool_t    *shpool;
    ngx_hakmem_zone_t  *zone;

    zone = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (ngx_array_init(&ss->workers, pool, 8, sizeof(ngx_hakmem_row_t))
        != NGX_OK
        || ngx_array_init(&ss->generations, pool, 2, sizeof(ngx_hakmem_row_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_shmtx_trylock(&shpool->mutex)) {
        ngx_hakmem_fold(zone);
        ngx_shmtx_unlock(&shpool->mutex);
    }

    for (n = 0; n < 100; n++) {
        rc = ngx_hakmem_snapshot_slots(ss, zone);

        if (rc != NGX_AGAIN) {
            break;
        }
    }

    if (rc == NGX_AGAIN) {

        /* there was a fold each time; now there can't be one */

        ngx_shmtx_lock(&shpool->mutex);
        rc = ngx_hakmem_snapshot_slots(ss, zone);
        ngx_shmtx_unlock(&shpool->mutex);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_hakmem_snapshot_sums(ss);
}


static ngx_int_t
ngx_hakmem_snapshot_slots(ngx_hakmem_snapshot_t *ss, ngx_hakmem_zone_t *zone)
{
    ngx_uint_t          i, top;
    ngx_hakmem_row_t   *row;
    ngx_atomic_uint_t   folds;
    ngx_hakmem_gone_t  *gone;

    folds = zone->folds;

    ngx_memory_barrier();

    gone = &zone->gone[folds & 1];
    top = zone->top;

    ngx_memzero(&ss->gone, sizeof(ngx_hakmem_row_t));
    ss->gone.workers = gone->workers;

    for (i = 0; i < NGX_HAKMEM_FIGURES; i++) {
        ss->gone.figures[i] = gone->figures[i];
    }

    ss->workers.nelts = 0;

    for (i = 0; i < top; i++) {

        if (zone->use[i] == gone->counted[i]) {
            continue;
        }

        ngx_memory_barrier();

        row = ngx_array_push(&ss->workers);
        if (row == NULL) {
            return NGX_ERROR;
        }

        ngx_hakmem_read_slot(row, &zone->slots[i]);
    }

    ngx_memory_barrier();

    return (zone->folds == folds) ? NGX_OK : NGX_AGAIN;
}


static void
ngx_hakmem_read_slot(ngx_hakmem_row_t *row, ngx_hakmem_slot_t *slot)
{
    ngx_uint_t       i;
    ngx_msec_int_t   age;

    row->pid = slot->pid;
    row->started = slot->started;
    row->worker = slot->worker;
    row->generation = slot->generation;
    row->workers = 1;

    /* what was written first is read last */

    row->ended = slot->ended;
    row->state = slot->state;

    age = (ngx_msec_int_t) (ngx_current_msec - slot->updated);
    row->age = (age > 0) ? age : 0;

    ngx_memory_barrier();

    ngx_memcpy(row->why, slot->why, sizeof(row->why));
    row->why[sizeof(row->why) - 1] = '\0';

    for (i = 0; i < NGX_HAKMEM_FIGURES; i++) {
        row->figures[i] = slot->figures[i];
    }
}


/*
 * Workers that died and are not folded yet join the gone. That is looked up
 * only now that all slots were read: when a worker's successor is among the
 * rows, the worker was dead before, so no two rows are the same worker's of
 * the same generation.
 */

static ngx_int_t
ngx_hakmem_snapshot_sums(ngx_hakmem_snapshot_t *ss)
{
    ngx_uint_t         i, n;
    ngx_hakmem_row_t  *rows, *sum;

    rows = ss->workers.elts;
    n = 0;

    for (i = 0; i < ss->workers.nelts; i++) {

        if (rows[i].ended || !ngx_hakmem_alive(rows[i].pid, rows[i].started)) {
            ngx_hakmem_add_row(&ss->gone, &rows[i], 1);
            continue;
        }

        if (n != i) {
            rows[n] = rows[i];
        }

        n++;
    }

    ss->slots = ss->workers.nelts;
    ss->workers.nelts = n;

    ngx_qsort(rows, n, sizeof(ngx_hakmem_row_t), ngx_hakmem_cmp_rows);

    ngx_memzero(&ss->all, sizeof(ngx_hakmem_row_t));
    ngx_hakmem_add_row(&ss->all, &ss->gone, 1);
    ss->all.workers = 0;

    sum = NULL;

    for (i = 0; i < n; i++) {

        if (sum == NULL || sum->generation != rows[i].generation) {

            sum = ngx_array_push(&ss->generations);
            if (sum == NULL) {
                return NGX_ERROR;
            }

            ngx_memzero(sum, sizeof(ngx_hakmem_row_t));
            sum->generation = rows[i].generation;
        }

        ngx_hakmem_add_row(sum, &rows[i], 0);
        ngx_hakmem_add_row(&ss->all, &rows[i], 0);
    }

    return NGX_OK;
}


static void
ngx_hakmem_add_row(ngx_hakmem_row_t *sum, ngx_hakmem_row_t *row,
    ngx_uint_t gone)
{
    ngx_uint_t  i;

    sum->workers += row->workers;

    for (i = 0; i < NGX_HAKMEM_FIGURES; i++) {
        if (!gone || ngx_hakmem_figures[i].counter) {
            sum->figures[i] += row->figures[i];
        }
    }
}


static int ngx_libc_cdecl
ngx_hakmem_cmp_rows(const void *one, const void *two)
{
    const ngx_hakmem_row_t  *first = one;
    const ngx_hakmem_row_t  *second = two;

    if (first->generation != second->generation) {
        return (first->generation < second->generation) ? -1 : 1;
    }

    if (first->worker != second->worker) {
        return (first->worker < second->worker) ? -1 : 1;
    }

    return 0;
}
