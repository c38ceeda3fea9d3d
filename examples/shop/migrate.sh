#!/bin/busybox sh
# Brings the stock to its present form. Running it twice does no harm.
set -e
echo "migrating"
printf '%s\n' "3 granite slabs" "5 basalt columns" "8 bags of gravel" >/data/stock.new
/bin/busybox mv /data/stock.new /data/stock
echo "done"
