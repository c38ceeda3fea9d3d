#!/bin/busybox sh
# The shop's page: a greeting, and the stock as the API tells it.
stock=$(/bin/busybox wget -q -O - http://api:9000/) || {
    printf 'Status: 502 Bad Gateway\r\nContent-Type: text/plain\r\n\r\nthe API does not answer\n'
    exit 0
}
printf 'Content-Type: text/plain\r\n\r\n'
read -r greeting </greeting
echo "$greeting to the shop. In stock:"
echo "$stock"
