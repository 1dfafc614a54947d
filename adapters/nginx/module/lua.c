
/*
 * lua.c - the heaps of Lua's VMs: hakmem_lua_limit, and garbage that an idle
 * worker still has.
 *
 * Lua's collector works only while a script allocates: what the last request
 * of a peak has dropped would stay. So the timer has a worker that has little
 * to do collect it, when there is 1 MB and half of what was left last time.
 */


#include <module/module.h>
#include <ngx_event.h>
#include <lua/vm.h>


#define NGX_HAKMEM_LUA_LIMIT_MIN  (1024 * 1024)
#define NGX_HAKMEM_LUA_GARBAGE    (1024 * 1024)
#define NGX_HAKMEM_LUA_QUIET      20000          /* calls between two looks */

#define NGX_HAKMEM_VALID_LUA                                                  \
    "\"off\", or a size of at least 1m and perhaps \"soft=\" and a smaller one"


static ngx_int_t ngx_hakmem_lua_size(ngx_str_t *value, size_t *size);
static void ngx_hakmem_lua_need(void);
static void ngx_hakmem_lua_needed(ngx_event_t *ev);
static void ngx_hakmem_lua_collect(ngx_log_t *log, size_t least);


static ngx_event_t  ngx_hakmem_lua_event;
static uint64_t     ngx_hakmem_lua_calls;
static uint64_t     ngx_hakmem_lua_refusals;


char *
ngx_hakmem_lua_limit(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_hakmem_conf_t  *hcf = conf;

    ngx_str_t   soft;
    ngx_str_t  *value = cf->args->elts;

    if (hcf->lua_limit != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    if (ngx_hakmem_takes(cf, 1, 2, NGX_HAKMEM_VALID_LUA) != NGX_CONF_OK) {
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        hcf->lua_limit = 0;
        return NGX_CONF_OK;
    }

    if (ngx_hakmem_lua_size(&value[1], &hcf->lua_limit) != NGX_OK) {
        goto invalid;
    }

    if (cf->args->nelts == 3) {

        if (ngx_strncmp(value[2].data, "soft=", 5) != 0) {
            goto invalid;
        }

        soft.data = value[2].data + 5;
        soft.len = value[2].len - 5;

        if (ngx_hakmem_lua_size(&soft, &hcf->lua_soft) != NGX_OK
            || hcf->lua_soft > hcf->lua_limit)
        {
            goto invalid;
        }
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%V\" directive, it must "
                       "be %s", &value[cf->args->nelts - 1], &value[0],
                       NGX_HAKMEM_VALID_LUA);

    return NGX_CONF_ERROR;
}


static ngx_int_t
ngx_hakmem_lua_size(ngx_str_t *value, size_t *size)
{
    ssize_t  bytes;

    bytes = ngx_parse_size(value);

    if (bytes == NGX_ERROR || bytes < NGX_HAKMEM_LUA_LIMIT_MIN) {
        return NGX_ERROR;
    }

    *size = (size_t) bytes;

    return NGX_OK;
}


/* "hakmem off" after http{} comes too late for this: that does no harm */

void
ngx_hakmem_lua_begin(ngx_hakmem_conf_t *hcf)
{
    hak_ngx_vm_enable(hcf->enable != 0 && hcf->mode != NGX_HAKMEM_PRELOAD);
    hak_ngx_vm_on_need(ngx_hakmem_lua_need);

    if (ngx_process != NGX_PROCESS_SIGNALLER) {
        (void) hak_ngx_vm_patch();
    }
}


void
ngx_hakmem_lua_init(ngx_hakmem_conf_t *hcf)
{
    ngx_conf_init_size_value(hcf->lua_limit, 0);
    ngx_conf_init_size_value(hcf->lua_soft, hcf->lua_limit / 4 * 3);

    ngx_hakmem_worker.lua_limit = hcf->lua_limit;

    hak_ngx_vm_limit(hcf->lua_soft, hcf->lua_limit);
}


/* inside an allocation: the collection comes when the script has yielded */

static void
ngx_hakmem_lua_need(void)
{
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE)
    {
        return;
    }

    ngx_hakmem_lua_event.handler = ngx_hakmem_lua_needed;
    ngx_hakmem_lua_event.log = ngx_cycle->log;

    ngx_post_event(&ngx_hakmem_lua_event, &ngx_posted_events);
}


static void
ngx_hakmem_lua_needed(ngx_event_t *ev)
{
    hak_ngx_vm_stats  before, after;

    hak_ngx_vm_get_stats(&before);

    (void) hak_ngx_vm_collect(0);

    hak_ngx_vm_get_stats(&after);

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "hakmem: Lua had %uz bytes, hakmem_lua_limit is %uz; %uz "
                  "after its garbage was collected; %uL requests refused",
                  before.live_bytes, ngx_hakmem_worker.lua_limit,
                  after.live_bytes,
                  after.limit_refusals - ngx_hakmem_lua_refusals);

    ngx_hakmem_lua_refusals = after.limit_refusals;
}


ngx_uint_t
ngx_hakmem_lua_look(ngx_hakmem_conf_t *hcf, ngx_log_t *log)
{
    uint64_t          calls;
    hak_ngx_vm_stats  stats;

    hak_ngx_vm_get_stats(&stats);

    calls = stats.calls - ngx_hakmem_lua_calls;
    ngx_hakmem_lua_calls = stats.calls;

    if (!hcf->trim || !hak_ngx_vm_wanted(NGX_HAKMEM_LUA_GARBAGE)) {
        return 0;
    }

    if (calls <= NGX_HAKMEM_LUA_QUIET || ngx_exiting) {
        ngx_hakmem_lua_collect(log, NGX_HAKMEM_LUA_GARBAGE);
    }

    return 1;
}


static void
ngx_hakmem_lua_collect(ngx_log_t *log, size_t least)
{
    size_t  freed;

    freed = hak_ngx_vm_collect(least);

    ngx_log_error(NGX_LOG_INFO, log, 0,
                  "hakmem: %uz bytes of Lua's garbage were collected", freed);
}
