
/*
 * status.c - the workers' statistics in shared memory: writing them, and what
 * happens to those of dead workers.
 */


#include <status/status.h>


static ngx_int_t ngx_hakmem_zone_init(ngx_shm_zone_t *shm_zone, void *data);
static ngx_uint_t ngx_hakmem_record_find(ngx_hakmem_zone_t *zone);
static void ngx_hakmem_record_tell(ngx_hakmem_record_t *record);


/*
 * this worker's record, and its counters at the start, which were the master's
 */

static ngx_hakmem_record_t  *ngx_hakmem_record;
static ngx_hakmem_zone_t    *ngx_hakmem_record_zone;
static ngx_atomic_uint_t     ngx_hakmem_base[NGX_HAKMEM_STATS];


ngx_shm_zone_t *
ngx_hakmem_zone_add(ngx_conf_t *cf, void *tag)
{
    size_t           size;
    ngx_str_t        name = ngx_string("hakmem_status");
    ngx_shm_zone_t  *shm_zone;

    /* the slab allocator takes some memory of its own for every page */

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

    /* records are cleared when they are taken: most never become resident */

    ngx_memzero(zone, offsetof(ngx_hakmem_zone_t, records));

    shpool->data = zone;
    shm_zone->data = zone;

    return NGX_OK;
}


/*
 * A process without a master comes here again with each configuration that it
 * reads, which may have another zone or none.
 */

void
ngx_hakmem_record_take(ngx_shm_zone_t *shm_zone, ngx_uint_t generation,
    ngx_log_t *log)
{
    ngx_uint_t            i;
    ngx_slab_pool_t      *shpool;
    ngx_hakmem_record_t  *record;
    ngx_hakmem_zone_t    *zone;

    if (ngx_hakmem_record) {

        if (shm_zone && shm_zone->data == ngx_hakmem_record_zone) {
            ngx_hakmem_record->generation = generation;
            return;
        }

        ngx_hakmem_record_end();
    }

    if (shm_zone == NULL) {
        return;
    }

    zone = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    ngx_hakmem_fold(zone);

    i = ngx_hakmem_record_find(zone);

    if (i == NGX_HAKMEM_RECORDS) {
        ngx_shmtx_unlock(&shpool->mutex);

        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "hakmem_status has no slot left for this worker, its "
                      "statistics will be missing: all %d are in use",
                      NGX_HAKMEM_RECORDS);
        return;
    }

    record = &zone->records[i];

    ngx_memzero(record, sizeof(ngx_hakmem_record_t));

    record->pid = ngx_pid;
    record->started = ngx_hakmem_started(ngx_pid);
    record->worker = ngx_worker;
    record->generation = generation;
    record->updated = ngx_current_msec;

    if (i >= zone->top) {
        zone->top = i + 1;
    }

    ngx_memory_barrier();

    zone->use[i]++;

    ngx_shmtx_unlock(&shpool->mutex);

    ngx_hakmem_record = record;
    ngx_hakmem_record_zone = zone;

    /* what a preloaded library counted in the master is not this worker's */

    ngx_hakmem_gather(ngx_hakmem_base);
}


static ngx_uint_t
ngx_hakmem_record_find(ngx_hakmem_zone_t *zone)
{
    ngx_uint_t          i;
    ngx_hakmem_gone_t  *gone;

    gone = &zone->gone[zone->folds & 1];

    for (i = 0; i < NGX_HAKMEM_RECORDS; i++) {
        if (zone->use[i] == gone->counted[i]) {
            break;
        }
    }

    return i;
}


void
ngx_hakmem_record_publish(void)
{
    ngx_uint_t            i;
    ngx_atomic_uint_t     stats[NGX_HAKMEM_STATS];
    ngx_hakmem_record_t  *record;

    record = ngx_hakmem_record;

    if (record == NULL) {
        return;
    }

    ngx_hakmem_gather(stats);

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {

        if (ngx_hakmem_stat_table[i].counter) {
            stats[i] -= ngx_hakmem_base[i];
        }

        record->stats[i] = stats[i];
    }

    ngx_hakmem_record_tell(record);

    record->state = ngx_hakmem_worker.state + 1;

    record->updated = ngx_current_msec;
}


/* what was published is valid until the worker wakes up */

void
ngx_hakmem_record_asleep(ngx_uint_t asleep)
{
    if (ngx_hakmem_record) {
        ngx_hakmem_record->updated = ngx_current_msec;

        ngx_memory_barrier();

        ngx_hakmem_record->asleep = asleep;
    }
}


/* no byte of the text may need escaping in JSON and elsewhere */

static void
ngx_hakmem_record_tell(ngx_hakmem_record_t *record)
{
    u_char      ch, text[NGX_HAKMEM_TEXT_LEN];
    ngx_uint_t  i;

    for (i = 0; i < NGX_HAKMEM_TEXT_LEN - 1; i++) {

        ch = (u_char) ngx_hakmem_worker.text[i];

        if (ch == '\0') {
            break;
        }

        if (ch == '"' || ch == '\\') {
            ch = '\'';
        }

        text[i] = (ch >= 0x20 && ch < 0x7f) ? ch : '?';
    }

    text[i] = '\0';

    if (ngx_strcmp(record->text, text) != 0) {
        ngx_memcpy(record->text, text, i + 1);
        ngx_memory_barrier();
    }
}


void
ngx_hakmem_record_end(void)
{
    if (ngx_hakmem_record == NULL) {
        return;
    }

    ngx_hakmem_record_publish();

    ngx_memory_barrier();

    ngx_hakmem_record->ended = 1;
    ngx_hakmem_record = NULL;
}


void
ngx_hakmem_record_forget(void)
{
    ngx_hakmem_record = NULL;
}


/* under the zone's mutex */

void
ngx_hakmem_fold(ngx_hakmem_zone_t *zone)
{
    ngx_uint_t            i, k, n;
    ngx_hakmem_gone_t    *gone, *next;
    ngx_hakmem_record_t  *record;

    gone = &zone->gone[zone->folds & 1];
    next = &zone->gone[(zone->folds + 1) & 1];

    n = 0;

    for (i = 0; i < zone->top; i++) {

        record = &zone->records[i];

        if (zone->use[i] == gone->counted[i]
            || (!record->ended
                && ngx_hakmem_alive(record->pid, record->started)))
        {
            continue;
        }

        if (n++ == 0) {
            *next = *gone;
        }

        next->workers++;

        for (k = 0; k < NGX_HAKMEM_STATS; k++) {
            if (ngx_hakmem_stat_table[k].counter) {
                next->stats[k] += record->stats[k];
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
