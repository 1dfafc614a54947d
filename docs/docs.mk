# The man pages, made of the headers' comments and the .def tables; PAGE.in is
# the rest, in docs/ or in an adapter's folder. They need Python.

PAGES_IN := $(wildcard docs/*.in) $(wildcard adapters/*/*.[0-9].in)
PAGES := $(patsubst %.in,%,$(notdir $(PAGES_IN)))
HAVE_PYTHON := $(shell command -v $(PYTHON) 2>/dev/null)

.PHONY: docs docs-if
docs: $(PAGES:%=$(BUILD)/man/%) ## use: make the man pages: man -l build/release/man/hakmem.7
	@:

vpath %.in $(sort $(dir $(PAGES_IN)))
$(BUILD)/man/%: %.in docs/make-man.py VERSION $(call core_files,base.h \
    options.h) $(wildcard include/*.h include/*.def core/*/*.def \
    adapters/*/*.def adapters/*/hakmem_*.h) adapters/python/hakmem_py/__init__.py
	$(SAY) MAN $@
	@mkdir -p $(@D)
	@command -v $(PYTHON) >/dev/null || \
	    $(call without,the man pages,no $(PYTHON),python3)
	$(Q)$(PYTHON) docs/make-man.py $* >$@

ifeq ($(HAVE_PYTHON),)

docs-if:
	@$(call say_left_out,$(call left_out,man pages,no $(PYTHON),python3))

else

docs-if: docs

# A page for each function, which leads to the page that has it.
LINKS = $(shell $(PYTHON) docs/make-man.py --links | sed 's/ .*//')
MAN_INSTALLED = $(foreach page,$(PAGES) $(LINKS),$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page))
define MAN_INSTALL
$(Q)for page in $(PAGES); do install -m 644 $(BUILD)/man/$$page \
    '$(DESTDIR)$(MANDIR)'/man$${page##*.} || exit 1; done
$(Q)$(PYTHON) docs/make-man.py --links | while read -r name page; do \
    echo ".so man3/$$page" >'$(DESTDIR)$(MANDIR)/man3/'$$name || exit 1; done
endef

endif
