# The smallest stack: one image with one program and one page, one service, one route.
#
#   basalt up examples/hello
#   curl http://127.0.0.1:8080/

variable "greeting" { default = "hello" }

image "web" {
  from = "scratch"
  copy "/bin/busybox" { to = "/bin/busybox" }
  file "/www/index.html" { content = "${var.greeting}\n" }
  command = ["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]
}

service "web" {
  image = image.web
  port "http" { container = 8080 }
  route { path = "/" }
}
