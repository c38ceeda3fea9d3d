#!/bin/busybox sh
# The API: the stock, as the migration has left it.
printf 'Content-Type: text/plain\r\n\r\n'
/bin/busybox cat /data/stock
