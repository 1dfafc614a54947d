# The nginx adapter: the module for NGINX_SRC, by itself and installed into nginx.
#
# NGINX_SRC: Debian's nginx-dev; or any source tree, with NGX_CONF_FLAGS
# for its configure.
NGINX_SRC ?= /usr/share/nginx/src
NGINX_DIR := $(BUILD)/nginx
NGINX_LIB := $(BUILD)/libhakmem_nginx.a
NGINX_MODULE := $(NGINX_DIR)/objs/ngx_http_hakmem_module.so
NGINX := $(wildcard adapters/nginx/patch/*.c) adapters/nginx/lua/vm.c adapters/nginx/pool/blocks.c \
    adapters/nginx/profile/frames.c

HEADERS += include/hakmem_ngx.h
CHECKS += test-nginx
DEMOS += demo-nginx
DEPS += nginx nginx-bench

$(NGINX_LIB): $(CORE_OBJECTS) $(NGINX:%.c=$(BUILD)/obj/%.o)

.PHONY: nginx
nginx: $(NGINX_MODULE) ## use: build the module for NGINX_SRC, Debian's nginx if not set
	@echo "the module is for $$(adapters/nginx/which.sh '$(NGINX_SRC)') ($(NGINX_SRC))"

$(NGINX_MODULE): export CC := $(CC)
$(NGINX_MODULE): export HAKMEM_NGINX_CC_OPT = $(strip $(filter -fsanitize=%,$(FLAGS)) $(CFLAGS))
$(NGINX_MODULE): export HAKMEM_NGINX_LD_OPT = $(strip $(filter -fsanitize=%,$(FLAGS)) $(LDFLAGS))

# Built anew for another nginx: its version and what it is configured with.
NGINX_FOR := $(NGINX_DIR)/built-for
NGINX_FOR_NOW := $(strip $(NGINX_SRC) $(shell sed -n \
    's/^.define NGINX_VERSION *"\(.*\)"/\1/p' \
    '$(NGINX_SRC)/src/core/nginx.h' 2>/dev/null; \
    cksum 2>/dev/null <'$(NGINX_SRC)/conf_flags') $(NGX_CONF_FLAGS))
ifneq ($(file <$(NGINX_FOR)),$(NGINX_FOR_NOW))
$(NGINX_FOR): force
endif
$(NGINX_FOR):
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(NGINX_FOR_NOW))' >$@
$(NGINX_MODULE): $(NGINX_FOR)

# The nginx module knows where the library will be: "hakmem_mode preload".
NGINX_PRELOAD ?= $(LIBDIR)/libhakmem.so
NGINX_LIBRARY := $(NGINX_DIR)/library
ifneq ($(file <$(NGINX_LIBRARY)),$(NGINX_PRELOAD))
$(NGINX_LIBRARY): force
endif
$(NGINX_LIBRARY):
	@mkdir -p $(@D)
	@echo '$(NGINX_PRELOAD)' >$@
$(NGINX_MODULE): $(NGINX_LIBRARY)
$(NGINX_MODULE): export HAKMEM_NGINX_PRELOAD = $(NGINX_PRELOAD)

# Where Debian's nginx looks for modules, and for what loads them.
NGINX_MODULES_DIR ?= $(or $(shell nginx -V 2>&1 | \
    sed -n 's/.*--modules-path=\([^ ]*\).*/\1/p'),/usr/lib/nginx/modules)
NGINX_AVAILABLE_DIR ?= /usr/share/nginx/modules-available
NGINX_ENABLED_DIR ?= /etc/nginx/modules-enabled
NGINX_LOAD := mod-http-hakmem.conf
# The nginx whose configuration is looked through, with -p and -c if it has such.
NGINX_RUN ?= nginx
NGINX_INSTALLED = $(NGINX_MODULES_DIR)/$(notdir $(NGINX_MODULE)) \
    $(NGINX_AVAILABLE_DIR)/$(NGINX_LOAD) $(NGINX_ENABLED_DIR)/00-$(NGINX_LOAD)

# As root: make install-nginx && nginx -t && nginx -s reload
.PHONY: install-nginx uninstall-nginx
install-nginx: nginx ## use: install the module and what loads it, DESTDIR before it
	$(SAY) INST '$(DESTDIR)$(NGINX_MODULES_DIR)'
	$(Q)install -d $(NGINX_INSTALLED:%='$(DESTDIR)'"$$(dirname %)")
	$(Q)install -m 644 $(NGINX_MODULE) '$(DESTDIR)$(NGINX_MODULES_DIR)'
	$(Q)echo 'load_module modules/$(notdir $(NGINX_MODULE));' \
	    >'$(DESTDIR)$(NGINX_AVAILABLE_DIR)/$(NGINX_LOAD)'
	$(Q)ln -sf '$(NGINX_AVAILABLE_DIR)/$(NGINX_LOAD)' \
	    '$(DESTDIR)$(NGINX_ENABLED_DIR)/00-$(NGINX_LOAD)'

# What the configuration says of us is looked for before the module is gone.
uninstall-nginx: ## use: remove what install-nginx put there, name the lines that will fail
	$(SAY) RM '$(DESTDIR)$(NGINX_MODULES_DIR)'
	$(Q)lines=$$([ -n '$(DESTDIR)' ] || \
	    HAKMEM_SKIP='$(NGINX_ENABLED_DIR)/00-$(NGINX_LOAD)' \
	    adapters/nginx/conf_lines.sh $(NGINX_RUN)); \
	rm -f $(NGINX_INSTALLED:%='$(DESTDIR)'%) && \
	if [ -n "$$lines" ]; then \
	    echo 'nginx will refuse these lines now, take them out before it' \
	        'is reloaded or started:'; \
	    printf '%s\n' "$$lines"; \
	fi

$(NGINX_MODULE): $(NGINX_LIB) $(wildcard adapters/nginx/*/*.[chd]* \
    adapters/nginx/config adapters/nginx/module.map adapters/nginx/build.sh \
    include/hakmem_ngx.h)
	$(SAY) NGINX $@
	$(Q)adapters/nginx/build.sh $(NGINX_SRC) $(NGINX_DIR) $(NGINX_LIB)

# ---- benchmarks ---------------------------------------------------------------

# BENCH_ARGS goes to nginx_report.py: '--insn', '--memory', '--rows static,tls'.
.PHONY: bench-nginx demo-nginx
bench-nginx: ## bench: nginx with the module, stock and on other allocators
	@.ci/install-deps nginx nginx-bench
	@$(MAKE) nginx
	@HAKMEM_NGINX_MODULE='$(abspath $(NGINX_MODULE))' \
	    $(PYTHON) bench/nginx_report.py --csv $(BUILD)/bench-nginx.csv \
	    $(BENCH_ARGS)

demo-nginx:
	@if why=$$(.ci/install-deps nginx 2>&1) && $(MAKE) nginx; then \
	    HAKMEM_NGINX_MODULE='$(abspath $(NGINX_MODULE))' \
	        $(PYTHON) bench/nginx_demo.py; \
	else echo "nginx: left out; $${why:-its module could not be built}" | \
	    tail -n 1; fi

include adapters/nginx/tests.mk
