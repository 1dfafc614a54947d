
/*
 * serve.c - which loaded objects are served, and how a worker has their slots
 * written.
 */


#include <module/module.h>
#include <patch/patch.h>


static hak_ngx_object *ngx_hakmem_list(ngx_pool_t *pool,
    ngx_hakmem_conf_t *hcf, ngx_uint_t *n);
static void ngx_hakmem_report(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf,
    hak_ngx_object *objects, ngx_uint_t n);
static void ngx_hakmem_report_left_out(ngx_cycle_t *cycle,
    hak_ngx_object *objects, ngx_uint_t n);


/* what is served by default */

static const char  *ngx_hakmem_default[] = { "nginx", "libcrypto" };

#define NGX_HAKMEM_DEFAULT                                                    \
    (sizeof(ngx_hakmem_default) / sizeof(ngx_hakmem_default[0]))


#define NGX_HAKMEM_LANES_LEN  (sizeof(", lanes tiny") - 1)


static ngx_uint_t  ngx_hakmem_slots;


/* at the end of the configuration everything is loaded */

char *
ngx_hakmem_check_objects(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf)
{
    char                  why[256];
    u_char                loaded[1024];
    ngx_uint_t            i, n;
    hak_ngx_object       *objects;
    hak_ngx_presence      presence;
    ngx_hakmem_object_t  *object;

    if (hcf->objects == NULL) {
        return NGX_CONF_OK;
    }

    object = hcf->objects->elts;

    for (i = 0; i < hcf->objects->nelts; i++) {
        presence = hak_ngx_find((char *) object[i].name.data);

        if (presence == HAK_NGX_LOADED) {
            continue;
        }

        *ngx_hakmem_loaded(loaded, loaded + sizeof(loaded) - 1) = '\0';

        ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                      "%s object \"%V\" in hakmem_objects in %V:%ui, "
                      "it must be of what is loaded: %s",
                      presence == HAK_NGX_NEVER ? "forbidden" : "unknown",
                      &object[i].name, &object[i].file, object[i].line,
                      loaded);

        return NGX_CONF_ERROR;
    }

    objects = ngx_hakmem_list(cycle->pool, hcf, &n);
    if (objects == NULL) {
        return NGX_CONF_ERROR;
    }

    /* only workers report what is wrong with the default ones */

    if (hak_ngx_check(objects, n, why, sizeof(why)) == 0
        || hak_ngx_check(objects, NGX_HAKMEM_DEFAULT, why, sizeof(why)) != 0)
    {
        return NGX_CONF_OK;
    }

    (void) hak_ngx_check(objects, n, why, sizeof(why));

    ngx_log_error(NGX_LOG_EMERG, cycle->log, 0,
                  "%s, in hakmem_objects in %V:%ui",
                  why, &object[0].file, object[0].line);

    return NGX_CONF_ERROR;
}


/* the default ones come first */

static hak_ngx_object *
ngx_hakmem_list(ngx_pool_t *pool, ngx_hakmem_conf_t *hcf, ngx_uint_t *n)
{
    ngx_uint_t            i, more;
    hak_ngx_object       *objects;
    ngx_hakmem_object_t  *object;

    more = hcf->objects ? hcf->objects->nelts : 0;
    *n = NGX_HAKMEM_DEFAULT + more;

    objects = ngx_pcalloc(pool, *n * sizeof(hak_ngx_object));
    if (objects == NULL) {
        return NULL;
    }

    for (i = 0; i < NGX_HAKMEM_DEFAULT; i++) {
        objects[i].name = ngx_hakmem_default[i];
    }

    object = more ? hcf->objects->elts : NULL;

    for (i = 0; i < more; i++) {
        objects[NGX_HAKMEM_DEFAULT + i].name = (char *) object[i].name.data;
    }

    return objects;
}


/*
 * Called when the process starts, and for what was loaded since. Served slots
 * stay served, as their objects have blocks of ours.
 */

void
ngx_hakmem_serve(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf)
{
    char             why[256];
    ngx_uint_t       n;
    ngx_pool_t      *pool;
    hak_ngx_object  *objects;

    if (!hcf->enable) {
        if (ngx_hakmem_worker.state == NGX_HAKMEM_SYSTEM) {
            (void) ngx_cpystrn((u_char *) ngx_hakmem_worker.text,
                               (u_char *) "hakmem off", NGX_HAKMEM_TEXT_LEN);
        }

        return;
    }

    if (!hak_ngx_start()) {
        ngx_hakmem_not_served(cycle, hcf, "no address range could be reserved",
                           "it takes pages of 4 KB and room below the limit "
                           "on address space (ulimit -v, LimitAS=)");
        return;
    }

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, cycle->log);
    if (pool == NULL) {
        ngx_hakmem_not_served(cycle, hcf, "out of memory", "reload nginx");
        return;
    }

    objects = ngx_hakmem_list(pool, hcf, &n);

    hak_ngx_set_lanes(hcf->lanes);
    (void) hak_ngx_loaded_since();

    if (objects == NULL) {
        ngx_hakmem_not_served(cycle, hcf, "out of memory", "reload nginx");
        ngx_destroy_pool(pool);
        return;
    }

    if (hak_ngx_patch(objects, n, why, sizeof(why)) != 0) {
        ngx_hakmem_not_served(cycle, hcf, why,
                           "mend it, or leave the object out of the "
                           "configuration");

    } else {
        ngx_hakmem_report(cycle, hcf, objects, n);
    }

    ngx_destroy_pool(pool);
}


void
ngx_hakmem_not_served(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf,
    const char *why, const char *advice)
{
    u_char      *p;
    ngx_uint_t   level;

    if (ngx_hakmem_worker.state == NGX_HAKMEM_MODULE) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "hakmem: nothing more is served: %s; %s", why, advice);
        return;
    }

    p = ngx_snprintf((u_char *) ngx_hakmem_worker.text,
                     NGX_HAKMEM_TEXT_LEN - 1, "%s; %s", why, advice);
    *p = '\0';

    /* serving requests matters more than the allocator */

    level = hcf->require ? NGX_LOG_EMERG : NGX_LOG_ERR;

    ngx_log_error(level, cycle->log, 0,
                  "hakmem: this worker is not served, it goes on with the "
                  "system allocator: %s; or write \"hakmem off;\"",
                  ngx_hakmem_worker.text);
}


static void
ngx_hakmem_report(ngx_cycle_t *cycle, ngx_hakmem_conf_t *hcf,
    hak_ngx_object *objects, ngx_uint_t n)
{
    u_char      *p, *last, *text;
    ngx_uint_t   i, slots;

    slots = 0;
    text = (u_char *) ngx_hakmem_worker.text;
    p = text;
    last = text + NGX_HAKMEM_TEXT_LEN - 1 - NGX_HAKMEM_LANES_LEN;

    for (i = 0; i < n; i++) {
        slots += objects[i].slots;

        if (objects[i].slots) {
            p = ngx_slprintf(p, last, "%s%s (%ui slots)",
                             p == text ? "" : ", ", objects[i].name,
                             (ngx_uint_t) objects[i].slots);
        }
    }

    if (slots == 0) {
        ngx_hakmem_not_served(cycle, hcf, objects[0].why[0] ? objects[0].why
                           : "nginx calls no allocator from outside",
                           "mend it, or do without the module");
        return;
    }

    if (hak_ngx_other_slots()) {
        slots += hak_ngx_other_slots();
        p = ngx_slprintf(p, last, ", frees of %ui other objects (%ui slots)",
                         (ngx_uint_t) hak_ngx_other_objects(),
                         (ngx_uint_t) hak_ngx_other_slots());
    }

    p = ngx_slprintf(p, last + NGX_HAKMEM_LANES_LEN, ", lanes %s",
                     hcf->lanes == HAK_NGX_ALL ? "all" : "tiny");
    *p = '\0';

    ngx_hakmem_report_left_out(cycle, objects, n);

    ngx_hakmem_worker.state = NGX_HAKMEM_MODULE;

    if (slots == ngx_hakmem_slots) {
        return;
    }

    ngx_hakmem_slots = slots;

    ngx_log_error(NGX_LOG_NOTICE, cycle->log, 0,
                  "hakmem: serving %s", ngx_hakmem_worker.text);
}


/*
 * Adds what is neither served nor patched to the end of worker.text, and logs
 * it in one line if it has changed since the last time.
 */

static void
ngx_hakmem_report_left_out(ngx_cycle_t *cycle, hak_ngx_object *objects,
    ngx_uint_t n)
{
    u_char       *p, *last, line[1024];
    size_t        len;
    ngx_uint_t    i;

    static u_char  said[sizeof(line)];

    p = line;
    last = line + sizeof(line) - 1;

    ngx_hakmem_worker.left_out = 0;

    for (i = 0; i < n; i++) {
        if (objects[i].why[0] != '\0') {
            ngx_hakmem_worker.left_out++;
            p = ngx_slprintf(p, last, "%s%s is not served: %s",
                             p == line ? "" : "; ", objects[i].name,
                             objects[i].why);
        }
    }

    if (hak_ngx_unpatched()) {
        p = ngx_slprintf(p, last, "%sfrees that stay the system's: ",
                         p == line ? "" : "; ");
        hak_ngx_unpatched_text((char *) p, last - p + 1);
        p += ngx_strlen(p);
    }

    *p = '\0';

    if (p != line) {
        len = ngx_strlen(ngx_hakmem_worker.text);
        p = ngx_snprintf((u_char *) ngx_hakmem_worker.text + len,
                         NGX_HAKMEM_TEXT_LEN - 1 - len, "; %s", line);
        *p = '\0';
    }

    if (ngx_strcmp(line, said) == 0) {
        return;
    }

    ngx_memcpy(said, line, sizeof(line));

    if (line[0] != '\0') {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0, "hakmem: %s", line);
    }
}
