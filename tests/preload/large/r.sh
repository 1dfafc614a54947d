#!/bin/bash
# r - R: vectors, matrices, models, strings, closures, processes that are forked;
# the examples of its own package stats.
# shellcheck source-path=SCRIPTDIR/.. source=lib.sh
. "$ROOT/tests/preload/lib.sh"

cat >program.R <<'CODE'
options(width = 80, digits = 7)
set.seed(42)
x <- matrix(rnorm(200 * 200), 200)
print(sum(solve(x) %*% x))
print(head(svd(x)$d))
d <- data.frame(id = 1:20000, kind = 1:20000 * 7919 %% 101, price = runif(20000))
d$name <- sprintf("item %05d %x", d$id, d$id * 31L)
print(head(aggregate(price ~ kind, d, mean), 10))
print(summary(lm(price ~ kind + I(kind^2), d)))
words <- vapply(1:30000, function(i) paste(sample(letters, 1 + i %% 8), collapse = ""), "")
t <- sort(table(words), decreasing = TRUE)
print(length(t)); print(sum(nchar(gsub("([aeiou])(.)", "\\2\\1\\U\\1", words, perl = TRUE))))
l <- list(); for (i in 1:20000) l[[i]] <- list(i, as.character(i), i^2)
print(sum(vapply(l, function(e) e[[3]], 0)))
s <- character(); for (i in 1:5000) s <- c(s, paste0("grow", i)); print(sum(nchar(s)))
f <- tempfile(); saveRDS(d, f); print(identical(readRDS(f), d)); write.csv(d, f)
print(dim(read.csv(f)))
print(unlist(parallel::mclapply(1:8, function(n) sum(sort(runif(1e5 * 0 + 20000)) > 2) + n, mc.cores = 4)))
print(tryCatch(numeric(1e13), error = function(e) "no such vector"))
print(memDecompress(memCompress(charToRaw(paste(words, collapse = " ")), "xz"), "xz", TRUE) == paste(words, collapse = " "))
invisible(gc())
fib <- compiler::cmpfun(function(n) if (n < 2) n else fib(n - 1) + fib(n - 2)); print(fib(20))
CODE
AS=program under Rscript --vanilla program.R >output
expect 'the last line' "$(tail -n 1 output)" '[1] 6765'
cat output
# Its own examples; figures of time and places in memory are of this run alone.
cat >own.R <<'CODE'
pdf(NULL)
options(digits = 5, warn = 1)
set.seed(1)
for (topic in c("lm", "glm", "nls", "optim", "loess", "arima", "hclust", "kmeans",
                "fft", "smooth.spline", "aggregate", "reshape", "prcomp", "step")) {
    cat("##", topic, "\n")
    example(topic, package = "stats", character.only = TRUE, echo = FALSE, ask = FALSE)
}
for (topic in c("regex", "strsplit", "Reduce", "mapply", "merge", "sprintf", "outer")) {
    cat("##", topic, "\n")
    example(topic, package = "base", character.only = TRUE, echo = FALSE, ask = FALSE)
}
CODE
AS=own under Rscript --vanilla own.R >examples
[ "$(grep -c '^##' examples)" -eq 21 ] || die 'its examples end early'
sed -e 's/0x[0-9a-f]*/0x/g' examples
