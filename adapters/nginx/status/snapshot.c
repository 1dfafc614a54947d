
/*
 * snapshot.c - the statistics of all workers at one time, read from the zone
 * while they may be being written, and their sums.
 */


#include <status/status.h>


static ngx_int_t ngx_hakmem_snapshot_records(ngx_hakmem_snapshot_t *ss,
    ngx_hakmem_zone_t *zone);
static void ngx_hakmem_read_record(ngx_hakmem_row_t *row,
    ngx_hakmem_record_t *record);
static ngx_int_t ngx_hakmem_snapshot_sums(ngx_hakmem_snapshot_t *ss);
static void ngx_hakmem_add_row(ngx_hakmem_row_t *sum, ngx_hakmem_row_t *row,
    ngx_uint_t gone);
static int ngx_libc_cdecl ngx_hakmem_cmp_rows(const void *one,
    const void *two);


ngx_int_t
ngx_hakmem_snapshot(ngx_hakmem_snapshot_t *ss, ngx_shm_zone_t *shm_zone,
    ngx_pool_t *pool)
{
    ngx_int_t           rc;
    ngx_uint_t          n;
    ngx_slab_pool_t    *shpool;
    ngx_hakmem_zone_t  *zone;

    rc = NGX_AGAIN;
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
        rc = ngx_hakmem_snapshot_records(ss, zone);

        if (rc != NGX_AGAIN) {
            break;
        }
    }

    if (rc == NGX_AGAIN) {

        /* there was a fold at each attempt; now there can't be one */

        ngx_shmtx_lock(&shpool->mutex);
        rc = ngx_hakmem_snapshot_records(ss, zone);
        ngx_shmtx_unlock(&shpool->mutex);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_hakmem_snapshot_sums(ss);
}


static ngx_int_t
ngx_hakmem_snapshot_records(ngx_hakmem_snapshot_t *ss, ngx_hakmem_zone_t *zone)
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

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {
        ss->gone.stats[i] = gone->stats[i];
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

        ngx_hakmem_read_record(row, &zone->records[i]);
    }

    ngx_memory_barrier();

    return (zone->folds == folds) ? NGX_OK : NGX_AGAIN;
}


static void
ngx_hakmem_read_record(ngx_hakmem_row_t *row, ngx_hakmem_record_t *record)
{
    ngx_uint_t       i;
    ngx_msec_int_t   age;

    row->pid = record->pid;
    row->started = record->started;
    row->worker = record->worker;
    row->generation = record->generation;
    row->workers = 1;

    /* what was written first is read last */

    row->ended = record->ended;
    row->state = record->state;

    age = record->asleep ? 0
                       : (ngx_msec_int_t) (ngx_current_msec - record->updated);
    row->age = (age > 0) ? age : 0;

    ngx_memory_barrier();

    ngx_memcpy(row->text, record->text, NGX_HAKMEM_TEXT_LEN);
    row->text[NGX_HAKMEM_TEXT_LEN - 1] = '\0';

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {
        row->stats[i] = record->stats[i];
    }
}


/*
 * Dead workers that are not folded yet are added to the gone. This is checked
 * only after all records were read: if a worker's successor is among the rows,
 * the worker was dead before, so no two rows are for the same worker of the
 * same generation.
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

    ss->records = ss->workers.nelts;
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

    for (i = 0; i < NGX_HAKMEM_STATS; i++) {
        if (!gone || ngx_hakmem_stat_table[i].counter) {
            sum->stats[i] += row->stats[i];
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
