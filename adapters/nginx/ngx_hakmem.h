
/*
 * ngx_hakmem.h - what the module's files share.
 *
 * One shared object has two modules: ngx_hakmem_module, a core module with the
 * directives of the main context and the workers' work, which needs no http{},
 * and ngx_http_hakmem_module with the status page and the variable.
 */


#ifndef _NGX_HAKMEM_H_INCLUDED_
#define _NGX_HAKMEM_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    ngx_flag_t       enable;
} ngx_hakmem_conf_t;


extern ngx_module_t  ngx_hakmem_module;
extern ngx_module_t  ngx_http_hakmem_module;


#define ngx_hakmem_get_conf(cycle)                                            \
    ((ngx_hakmem_conf_t *) ngx_get_conf((cycle)->conf_ctx, ngx_hakmem_module))


#endif /* _NGX_HAKMEM_H_INCLUDED_ */
