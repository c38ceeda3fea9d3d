variable "image" {}

variable "size" {
  type    = number
  default = 1
}

service "cache" {
  image     = var.image
  instances = var.size
  port "tcp" {
    container = 6379
    protocol  = "tcp"
  }
}

output "service" { value = service.cache }

output "address" { value = "${service.cache.name}.internal:6379" }
